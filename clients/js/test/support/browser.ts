// What tabs of one browser have in common: channels, locks and workers, and the deaths of tabs.
//
// Everything belongs to the tab, or the worker, in whose course it was made; `kill` takes all of it
// away at once, as the browser does.

import { AsyncLocalStorage } from "node:async_hooks";
import { work, type WorkerScope } from "../../src/tab-worker.js";

/** A tab, or a worker. */
export class Owner {
  isDead = false;
  readonly onDeath: (() => void)[] = [];
}

type Listener = ((event: { data: unknown }) => void) | null;

interface Port {
  onmessage: Listener;
  postMessage(data: unknown): void;
}

export class Browser {
  readonly #course = new AsyncLocalStorage<Owner>();
  readonly #channels = new Map<string, Set<{ onmessage: Listener; readonly owner: Owner }>>();
  readonly #lines = new Map<string, Promise<unknown>>();
  readonly workers = new Map<string, Owner>();
  /** Whether a worker can be started now. */
  mayWork = true;

  get owner(): Owner {
    const owner = this.#course.getStore();
    if (!owner) throw new Error("this belongs to no tab");
    return owner;
  }

  /** Do something as a tab, and all that comes of it. */
  as<Result>(owner: Owner, act: () => Result): Result {
    return this.#course.run(owner, act);
  }

  kill(owner: Owner): void {
    owner.isDead = true;
    for (const then of owner.onDeath.splice(0)) then();
  }

  /** Something happens to an owner, a little later. */
  #later(owner: Owner, act: () => void): void {
    this.#setTimeout(() => {
      if (!owner.isDead) this.as(owner, act);
    }, 0);
  }

  readonly #setTimeout = globalThis.setTimeout;

  /** Timers, which die with whom they belong to. */
  readonly setTimeout = (then: () => void, ms?: number) => {
    const owner = this.#course.getStore();
    if (owner?.isDead) return undefined;
    const timer = this.#setTimeout(() => {
      if (owner) this.as(owner, then);
      else then();
    }, ms);
    owner?.onDeath.push(() => {
      clearTimeout(timer);
    });
    return timer;
  };

  /** A WebSocket class whose connections belong to their owner, and break off when it dies. */
  owned(Socket: typeof WebSocket): typeof WebSocket {
    // eslint-disable-next-line @typescript-eslint/no-this-alias
    const browser = this;
    return class extends Socket {
      constructor(url: string | URL, protocols?: string | string[]) {
        super(url, protocols);
        const { owner } = browser;
        for (const name of ["onopen", "onmessage", "onclose"]) {
          let listener: ((event: unknown) => void) | null = null;
          Object.defineProperty(this, name, {
            get: () => (event: unknown) => {
              if (!owner.isDead) browser.as(owner, () => listener?.(event));
            },
            set: (given: typeof listener) => (listener = given),
          });
        }
        const die = () => {
          this.close();
        };
        if (owner.isDead) die();
        else owner.onDeath.push(die);
      }
    };
  }

  get BroadcastChannel() {
    // eslint-disable-next-line @typescript-eslint/no-this-alias
    const browser = this;
    return class {
      onmessage: Listener = null;
      readonly owner = browser.owner;
      readonly #name: string;

      constructor(name: string) {
        this.#name = name;
        const open = browser.#channels.get(name) ?? new Set();
        browser.#channels.set(name, open.add(this));
      }

      postMessage(data: unknown): void {
        const open = browser.#channels.get(this.#name);
        if (!open?.has(this)) throw new Error("this channel is closed");
        if (this.owner.isDead) return;
        const copy = structuredClone(data);
        for (const other of [...open].filter((each) => each !== this)) {
          browser.#later(other.owner, () => {
            if (open.has(other)) other.onmessage?.({ data: copy });
          });
        }
      }

      close(): void {
        browser.#channels.get(this.#name)?.delete(this);
      }
    };
  }

  /** One holder each; the others wait in line. */
  readonly locks = {
    query: () => Promise.resolve({}),
    request: async (
      name: string,
      { signal }: { signal: AbortSignal },
      hold: () => Promise<void>,
    ): Promise<void> => {
      const { owner } = this;
      const before = this.#lines.get(name) ?? Promise.resolve();
      const mine = before.then(() => {
        if (signal.aborted || owner.isDead) return undefined;
        const death = new Promise<void>((resolve) => {
          owner.onDeath.push(resolve);
        });
        return Promise.race([hold(), death]);
      });
      this.#lines.set(name, mine);
      await mine;
    },
  };

  get SharedWorker() {
    // eslint-disable-next-line @typescript-eslint/no-this-alias
    const browser = this;
    return class {
      onerror: (() => void) | null = null;
      readonly port: Port;

      constructor(_url: URL, { name }: { name: string }) {
        if (!browser.mayWork) throw new Error("this page may not start workers");
        const [mine, theirs] = ports(browser.owner, browser.#later.bind(browser));
        this.port = mine;
        const key = name;
        let worker = browser.workers.get(key);
        let scope = worker && scopes.get(worker);
        if (!worker || worker.isDead || !scope) {
          const started = (worker = new Owner());
          scope = {
            name,
            onconnect: null,
            close: () => {
              browser.kill(started);
            },
          };
          scopes.set(started, scope);
          browser.workers.set(key, started);
          const born = scope;
          browser.as(started, () => {
            work(born);
          });
        }
        theirs.owner = worker;
        const { onconnect } = scope;
        browser.#later(worker, () => {
          onconnect?.({ ports: [theirs as unknown as MessagePort] });
        });
      }
    };
  }
}

const scopes = new WeakMap<Owner, WorkerScope>();

/** Both ends of a pipe; what is sent before the other end listens waits for it. */
function ports(
  tab: Owner,
  later: (owner: Owner, act: () => void) => void,
): [Port, Port & { owner: Owner }] {
  class End implements Port {
    other: End | undefined;
    readonly #waiting: unknown[] = [];
    #listener: Listener = null;

    constructor(public owner: Owner) {}

    get onmessage(): Listener {
      return this.#listener;
    }

    set onmessage(listener: Listener) {
      this.#listener = listener;
      for (const data of this.#waiting.splice(0)) this.receive(data);
    }

    receive(data: unknown): void {
      if (!this.#listener) this.#waiting.push(data);
      else {
        later(this.owner, () => {
          this.#listener?.({ data });
        });
      }
    }

    postMessage(data: unknown): void {
      this.other?.receive(data);
    }
  }
  const [one, other] = [new End(tab), new End(tab)];
  one.other = other;
  other.other = one;
  return [one, other];
}
