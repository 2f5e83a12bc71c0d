// The token of this tab: where it is kept, and how a fresh one gets under what is followed.

import { showTheSame } from "./token.js";

const KEY = "runcast.token";
/** The client gives up asking after 30 seconds, and asks again later. */
const PATIENCE_MS = 29_000;

export interface SessionState {
  readonly token: string;
  /** The client has asked for a newer token than this one. */
  readonly isFreshWanted: boolean;
  /** Grows when all that was followed is to be forgotten. */
  readonly round: number;
}

export class Session {
  readonly #storage: Pick<Storage, "getItem" | "setItem">;
  #state: SessionState;
  #handedOut = "";
  #waiting: { resolve: (token: string) => void; since: number } | undefined;
  readonly #listeners = new Set<() => void>();

  constructor(storage: Pick<Storage, "getItem" | "setItem">) {
    this.#storage = storage;
    this.#state = { token: storage.getItem(KEY) ?? "", isFreshWanted: false, round: 0 };
  }

  readonly getSnapshot = (): SessionState => this.#state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** What the client asks: the token, and then another one, which only a person can give. */
  readonly ask = (): string | Promise<string> => {
    const { token } = this.#state;
    if (this.#handedOut !== token) return (this.#handedOut = token);
    this.#set({ isFreshWanted: true });
    return new Promise((resolve) => {
      this.#waiting = { resolve, since: Date.now() };
    });
  };

  /** Take a token from a person. What is followed goes on if that is what the client waits for. */
  give(token: string): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.#storage.setItem(KEY, token);
    const { token: before, round } = this.#state;
    if (waiting && Date.now() - waiting.since < PATIENCE_MS && showTheSame(before, token)) {
      this.#handedOut = token;
      this.#set({ token, isFreshWanted: false });
      waiting.resolve(token);
    } else {
      this.#handedOut = "";
      this.#set({ token, isFreshWanted: false, round: round + 1 });
    }
  }

  #set(fields: Partial<SessionState>): void {
    this.#state = { ...this.#state, ...fields };
    for (const listener of [...this.#listeners]) listener();
  }
}
