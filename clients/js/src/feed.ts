// What an application holds of a subscription: a store of the newest state, and an iteration.

import { once, throttled, type Store } from "./store.js";
import type { Data, Progress, Subscription } from "./subscription.js";

/**
 * Nothing is asked for until somebody subscribes or iterates, and all who follow the same thing
 * share one subscription.
 */
export interface Feed<Snapshot extends Progress, Item>
  extends Store<Snapshot>, AsyncIterable<Item> {}

/** Subscriptions that somebody follows, by what they ask for. */
export class Registry {
  readonly #known = new Map<string, Subscription<Data>>();
  #closing = new AbortController();

  /** Aborted when all are left; whoever comes later has another one. */
  get signal(): AbortSignal {
    return this.#closing.signal;
  }

  peek<Kept extends Data>(key: string): Subscription<Kept> | undefined {
    return this.#known.get(key) as Subscription<Kept> | undefined;
  }

  /** `make` is given what to call once the subscription is over. */
  obtain<Kept extends Data>(
    key: string,
    make: (onOver: () => void) => Subscription<Kept>,
  ): Subscription<Kept> {
    const known = this.peek<Kept>(key);
    if (known) return known;
    const made = make(() => {
      if (this.#known.get(key) === made) this.#known.delete(key);
    });
    this.#known.set(key, made);
    return made;
  }

  leaveAll(): void {
    this.#closing.abort();
    this.#closing = new AbortController();
    for (const subscription of [...this.#known.values()]) subscription.leave();
  }
}

/** How to come by the subscription of a feed. */
export interface Source<Kept extends Data> {
  peek(): Subscription<Kept> | undefined;
  obtain(): Subscription<Kept>;
}

// React Native's engine has no such symbol; this is what its compiled `for await` looks for then.
const { asyncIterator = "@@asyncIterator" } = Symbol as { asyncIterator?: symbol };

export function feedOf<Kept extends Data, Snapshot extends Progress, Item>(
  source: Source<Kept>,
  view: (subscription: Subscription<Kept> | undefined) => Snapshot,
  iterate: () => AsyncIterator<Item>,
  throttleMs?: number,
): Feed<Snapshot, Item> {
  const store = throttled(storeOf(source, view), throttleMs);
  return { ...store, [asyncIterator]: iterate } as Feed<Snapshot, Item>;
}

/** A store over a subscription that is there while somebody subscribes; afterwards over its last state. */
function storeOf<Kept extends Data, Snapshot extends Progress>(
  source: Source<Kept>,
  view: (subscription: Subscription<Kept> | undefined) => Snapshot,
): Store<Snapshot> {
  let mine: Subscription<Kept> | undefined;
  let followers = 0;
  const idle = view(undefined);
  return {
    getSnapshot: () => {
      const subscription = mine ?? source.peek();
      return subscription ? snapshotOf(subscription, view) : idle;
    },
    subscribe: (listener) => {
      if (followers++ === 0) mine = source.obtain();
      const subscription = mine as Subscription<Kept>;
      const unsubscribe = subscription.changes.subscribe(listener);
      const leave = subscription.follow();
      return once(() => {
        followers -= 1;
        unsubscribe();
        leave();
      });
    },
  };
}

const snapshots = new WeakMap<object, { at: number; snapshot: unknown }>();

/** Made once for each change, whoever looks. */
function snapshotOf<Kept extends Data, Snapshot>(
  subscription: Subscription<Kept>,
  view: (subscription: Subscription<Kept>) => Snapshot,
): Snapshot {
  const at = subscription.changes.getSnapshot();
  const known = snapshots.get(subscription);
  if (known?.at === at) return known.snapshot as Snapshot;
  const snapshot = view(subscription);
  snapshots.set(subscription, { at, snapshot });
  return snapshot;
}
