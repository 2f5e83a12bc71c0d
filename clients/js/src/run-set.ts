// The runs of one feed as they are now. Pure.

import type { Frame } from "./frame.js";
import type { Position } from "./request.js";
import type { Run } from "./types.js";

export class RunSet {
  #runs = new Map<string, Run>();
  readonly #maxRuns: number;
  #cursor: string | undefined;
  #sorted: readonly Run[] | undefined = [];

  constructor(maxRuns = Infinity) {
    this.#maxRuns = maxRuns;
  }

  get position(): Position {
    return this.#cursor === undefined ? {} : { cursor: this.#cursor };
  }

  /** Newest first; the same array until something changes. */
  get runs(): readonly Run[] {
    if (!this.#sorted) {
      this.#sorted = [...this.#runs.values()].sort(newestFirst).slice(0, this.#maxRuns);
      this.#runs = new Map(this.#sorted.map((run) => [run.id, run])); // older ones are let go
    }
    return this.#sorted;
  }

  get(id: string): Run | undefined {
    return this.#runs.get(id);
  }

  /** Take in what came. Around a resume a state may come twice. */
  take(frame: Frame): void {
    if (frame.type === "run") this.#put(frame.run);
    else if (frame.type === "gone" && this.#runs.delete(frame.gone.id)) this.#sorted = undefined;
    // Last: what was not taken in must come again.
    if ("cursor" in frame && frame.cursor) this.#cursor = frame.cursor;
  }

  forget(): void {
    this.#runs = new Map();
    this.#sorted = [];
    this.#cursor = undefined;
  }

  #put(run: Run): void {
    const known = this.#runs.get(run.id);
    if (known && known.revision >= run.revision) return;
    this.#runs.set(run.id, run);
    this.#sorted = undefined;
  }
}

function newestFirst(one: Run, other: Run): number {
  if (one.createdAt !== other.createdAt) return one.createdAt < other.createdAt ? 1 : -1;
  return one.id < other.id ? 1 : -1;
}
