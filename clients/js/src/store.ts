// A value that can be watched: what `useSyncExternalStore` and other frameworks' stores want.

export interface Store<Value> {
  /** The same reference until the value changes. */
  readonly getSnapshot: () => Value;
  /** Call back after each change, until the returned function is called. */
  readonly subscribe: (listener: () => void) => () => void;
}

export class Cell<Value> implements Store<Value> {
  readonly #listeners = new Set<() => void>();
  #value: Value;

  constructor(value: Value) {
    this.#value = value;
  }

  readonly getSnapshot = (): Value => this.#value;

  readonly subscribe = (listener: () => void): (() => void) => {
    const own = () => {
      listener();
    };
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  };

  set(value: Value): void {
    this.#value = value;
    for (const listener of [...this.#listeners]) {
      try {
        listener();
      } catch (error) {
        // One listener's mistake is reported, and is not the others' problem.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** What only the first call does. */
export function once(then: () => void): () => void {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    then();
  };
}

/** The same store, which tells of a change at once, and of later ones once per so many milliseconds. */
export function throttled<Value>(store: Store<Value>, ms = 0): Store<Value> {
  if (ms <= 0) return store;
  const cell = new Cell(store.getSnapshot());
  let followers = 0;
  let stop: () => void = () => undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const show = () => {
    timer = undefined;
    if (cell.getSnapshot() === store.getSnapshot()) return;
    timer = setTimeout(show, ms);
    cell.set(store.getSnapshot());
  };
  const changed = () => {
    if (timer === undefined) show();
  };
  return {
    getSnapshot: () => (followers === 0 ? store.getSnapshot() : cell.getSnapshot()),
    subscribe: (listener) => {
      const unsubscribe = cell.subscribe(listener);
      if (followers++ === 0) {
        stop = store.subscribe(changed);
        cell.set(store.getSnapshot());
      }
      return once(() => {
        unsubscribe();
        if (--followers > 0) return;
        stop();
        clearTimeout(timer);
        timer = undefined;
      });
    },
  };
}
