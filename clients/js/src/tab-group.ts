// Tabs that may share a connection, and the worker that may have it: what they say, and where.
//
// Who has the connection leads. A group has one channel on which all speak to the leader, each tab
// one on which the leader speaks to it. Whoever holds the lock of the group's name leads; each tab
// holds a lock of its own name, so that the others learn when it is gone.

import type { Frame } from "./frame.js";
import type { ConnectionState } from "./link.js";
import type { Request } from "./request.js";

/** To the leader; `leading` is the leader's own word to all. */
export type Upward =
  | { readonly type: "open"; readonly tab: string; readonly id: string; readonly request: Request }
  | { readonly type: "close"; readonly tab: string; readonly id: string }
  /** The network, or the person, is back. */
  | { readonly type: "back"; readonly tab: string; readonly isNewNetwork: boolean }
  /** The answer to `token`: one, or why there is none. */
  | { readonly type: "token"; readonly tab: string; readonly token?: string; readonly why?: string }
  | { readonly type: "leading" };

/** From the leader to one tab. */
export type Downward =
  | { readonly type: "frame"; readonly id: string; readonly frame: Frame }
  | { readonly type: "connection"; readonly state: ConnectionState }
  /** A worker has no token function: give a token, other than the one that is spent. */
  | { readonly type: "token"; readonly spent?: string };

export class Group {
  readonly #name: string;
  readonly #closed = new AbortController();
  readonly #up: BroadcastChannel;

  /** `name`: equal for all who may share. */
  constructor(name: string, hear: (message: Upward) => void) {
    this.#name = `runcast 2 ${name}`; // the number changes with what is said here
    this.#up = new BroadcastChannel(this.#name);
    this.#up.onmessage = ({ data }) => {
      hear(data as Upward);
    };
  }

  say(message: Upward): void {
    if (!this.#closed.signal.aborted) this.#up.postMessage(message);
  }

  /** The channel of one tab; who asks for it closes it. */
  channelOf(tab: string): BroadcastChannel {
    return new BroadcastChannel(this.#lockOf(tab));
  }

  /** Keep the lock of a tab that is here. */
  stay(tab: string, then: () => void): void {
    this.#hold(this.#lockOf(tab), then);
  }

  /** Wait until a tab is gone. */
  whenGone(tab: string, then: () => void): void {
    this.#hold(this.#lockOf(tab), (release) => {
      release();
      then();
    });
  }

  /** Wait until nobody else leads, and lead until this is closed or gone. */
  whenLeading(then: () => void): void {
    this.#hold(this.#name, then);
  }

  /** Let go of all locks, and of the channel. */
  close(): void {
    this.#closed.abort();
    this.#up.close();
  }

  /** Aborted once this is closed. */
  get signal(): AbortSignal {
    return this.#closed.signal;
  }

  #lockOf(tab: string): string {
    return `${this.#name} ${tab}`;
  }

  #hold(name: string, then: (release: () => void) => void): void {
    const { signal } = this;
    const held = navigator.locks.request(name, { signal }, async () => {
      if (signal.aborted) return; // in the moment in which it was given
      await new Promise<void>((resolve) => {
        const release = () => {
          signal.removeEventListener("abort", release);
          resolve();
        };
        signal.addEventListener("abort", release);
        then(release);
      });
    });
    held.catch(() => undefined); // closed while it waited
  }
}
