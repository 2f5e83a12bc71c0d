// Drives one subscription: the state machine between a link and the data that it fills.
//
// All who follow the same thing share one of these; it lives a little longer than the last of them.

import { delayBefore } from "./backoff.js";
import { LINGER_MS } from "./constants.js";
import { problemIn, RuncastError, type Problem } from "./errors.js";
import { isLast, type Frame, type Reset } from "./frame.js";
import type { Link } from "./link.js";
import type { Position, Subject } from "./request.js";
import { Cell, once, type Store } from "./store.js";
import { INITIAL, step, type Input, type Phase, type State } from "./subscription-state.js";
import { Timers } from "./timers.js";

/** What every snapshot tells beside its data. */
export interface Progress {
  /**
   * `idle`: not followed. `connecting`: what there is comes. `live`: that was all, and news will
   * come. `retrying`: something passing is in the way. `ended` and `failed`: nothing more will come.
   */
  readonly status: Phase;
  /** Why it failed. */
  readonly error?: RuncastError;
  /** What is in the way for now. */
  readonly problem?: Problem;
  /** Why it ended. */
  readonly endReason?: State["end"];
  /** How often all that was known had to be forgotten and was read again. */
  readonly resets: number;
  readonly lastReset?: Reset;
}

export const NOT_FOLLOWED: Progress = { status: "idle", resets: 0 };

/** What frames are taken into. */
export interface Data {
  readonly position: Position;
  take(frame: Frame): void;
  forget(): void;
}

export class Subscription<Kept extends Data> {
  readonly data: Kept;
  /** Grows with each change that listeners have been told of. */
  readonly changes: Store<number>;

  readonly #link: Pick<Link, "open">;
  readonly #subject: Subject;
  readonly #onOver: () => void;
  readonly #changes = new Cell(0);
  #state = INITIAL;
  #progress = NOT_FOLLOWED;
  #followers = 0;
  #hangUp: (() => void) | undefined;
  readonly #timers = new Timers<"retry" | "linger" | "flush">();

  /** `onOver`: nobody follows it any more, or nothing more will come; whoever comes needs another. */
  constructor(
    link: Pick<Link, "open">,
    subject: Subject,
    data: Kept,
    onOver: () => void = () => undefined,
  ) {
    this.#link = link;
    this.#subject = subject;
    this.#onOver = onOver;
    this.data = data;
    this.changes = this.#changes;
  }

  get progress(): Progress {
    return this.#progress;
  }

  get isOver(): boolean {
    return this.#state.phase === "ended" || this.#state.phase === "failed";
  }

  /** Follow it until the returned function is called. */
  follow(): () => void {
    this.#followers += 1;
    this.#timers.clear("linger");
    this.#receive({ type: "follow" });
    return once(() => {
      this.#followers -= 1;
      const isAsked = this.#state.phase !== "idle" && !this.isOver;
      if (this.#followers === 0 && isAsked) this.#timers.after("linger", LINGER_MS, this.leave);
    });
  }

  /**
   * Wait for news; true if there will be none.
   *
   * @throws RuncastError if it failed.
   */
  async news(): Promise<boolean> {
    if (this.#progress.error) throw this.#progress.error;
    if (this.isOver || this.#state.phase === "idle") return true;
    await new Promise<void>((resolve) => {
      const stop = this.changes.subscribe(() => {
        stop();
        resolve();
      });
    });
    return false;
  }

  /** Stop now. */
  readonly leave = (): void => {
    this.#timers.clear("linger", "retry");
    this.#receive({ type: "leave" });
    this.#onOver();
  };

  #receive(input: Input): void {
    const before = this.#state;
    const [state, action] = step(before, input);
    this.#state = state;
    switch (action) {
      case "ask":
        this.#ask();
        break;
      case "take":
        if (!this.#take(input as Frame)) return;
        break;
      case "forget":
        this.data.forget();
        break;
      case "forget-and-wait":
        this.data.forget();
        this.#wait();
        break;
      case "wait":
        this.#wait();
        break;
      case "hang-up":
        this.#hangUp?.();
        break;
      case "none":
        break;
    }
    const isData = action === "take" && input.type !== "cursor";
    if (state !== before || isData || action === "forget") this.#changed(state !== before);
    if (this.isOver && before.phase !== state.phase) {
      this.#flush();
      this.#onOver();
    }
  }

  #ask(): void {
    const { data } = this;
    const { position } = data;
    if (position.cursor === undefined && position.from === undefined) data.forget(); // a snapshot follows
    let current = true;
    const hangUp = this.#link.open({ ...this.#subject, ...position }, (frame) => {
      if (!current) return;
      if (isLast(frame)) current = false;
      this.#receive(frame);
    });
    this.#hangUp = () => {
      if (current) hangUp();
      current = false;
    };
  }

  /** Take the data in; what cannot be is a problem with the connection, and is asked for again. */
  #take(frame: Frame): boolean {
    try {
      this.data.take(frame);
      return true;
    } catch (error) {
      this.#hangUp?.();
      this.#receive({ type: "problem", problem: problemIn(error, "invalid_answer") });
      return false;
    }
  }

  #wait(): void {
    this.#timers.after("retry", delayBefore(this.#state.attempt - 1), () => {
      this.#receive({ type: "due" });
    });
  }

  /** Tell soon, once for all that comes until then. */
  #changed(isProgress: boolean): void {
    if (isProgress) this.#progress = progressOf(this.#state);
    if (!this.#timers.isSet("flush")) {
      this.#timers.after("flush", 0, () => {
        this.#flush();
      });
    }
  }

  #flush(): void {
    this.#timers.clear("flush");
    this.#changes.set(this.#changes.getSnapshot() + 1);
  }
}

function progressOf({ phase, problem, end, resets, reset }: State): Progress {
  return {
    status: phase,
    resets,
    ...(reset && { lastReset: reset }),
    ...(end && { endReason: end }),
    ...(problem && (phase === "failed" ? { error: RuncastError.of(problem) } : { problem })),
  };
}
