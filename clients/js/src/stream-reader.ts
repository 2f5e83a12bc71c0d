// Reads a stream part by part, however slowly, in bounded memory.
//
// A reader is nothing but an offset. It takes parts from the log that all followers of the stream
// share, for as long as that still has them; once it is too slow for that, it asks for a page of its
// own at a time, and for the next page when it has worked through one.

import { RuncastError } from "./errors.js";
import type { Frame } from "./frame.js";
import { StreamLog } from "./stream-log.js";
import type { Subscription } from "./subscription.js";

export interface Shelf {
  /** Aborted when the client is closed. */
  readonly signal: AbortSignal;
  /** The subscription that all share. */
  obtain(): Subscription<StreamLog>;
  /** A subscription of this reader alone. */
  page(log: StreamLog): Subscription<StreamLog>;
}

/**
 * Give all parts that are there, in order and each once, whenever there are some.
 *
 * @throws RuncastError if the stream cannot be read on: why it failed, or `position_lost` if parts
 *   that were not read yet are not kept any more.
 */
export async function* readParts(
  shelf: Shelf,
  from: "start" | "latest" | number,
  maxParts: number,
): AsyncGenerator<readonly unknown[], void, undefined> {
  const { signal } = shelf;
  let subscription = shelf.obtain();
  let leave = subscription.follow();
  let { resets } = subscription.progress;
  let next = from === "latest" ? undefined : from === "start" ? 0 : from;
  let hasRead = false;
  try {
    for (;;) {
      const { data: log, progress } = subscription;
      if (progress.resets !== resets) {
        if (hasRead) throw lost(progress.lastReset?.message);
        resets = progress.resets;
        next = undefined;
      }
      if (log.next !== undefined) next ??= log.first;
      const isBehind = next !== undefined && log.next !== undefined && next < log.first;
      const parts = next === undefined || isBehind ? [] : log.partsFrom(next);
      if (next !== undefined && parts.length > 0) {
        next += parts.length;
        hasRead = true;
        yield parts;
      } else if (signal.aborted) return;
      else if (next !== undefined && (isBehind || (log instanceof Page && log.isFull))) {
        leave();
        subscription = pageFrom(next, maxParts, shelf);
        leave = subscription.follow();
        ({ resets } = subscription.progress);
      } else if (await subscription.news()) return;
    }
  } finally {
    leave();
  }
}

/** A log that stops being filled at some point. */
class Page extends StreamLog {
  readonly #limit: number;
  onFull: () => void = () => undefined;

  constructor(from: number, limit: number) {
    super(from, { maxParts: Infinity, maxText: 0 });
    this.#limit = limit;
  }

  get isFull(): boolean {
    return this.size >= this.#limit;
  }

  override take(frame: Frame): void {
    super.take(frame);
    if (this.isFull) this.onFull();
  }
}

function pageFrom(offset: number, limit: number, shelf: Shelf): Subscription<StreamLog> {
  const page = new Page(offset, limit);
  const subscription = shelf.page(page);
  page.onFull = subscription.leave;
  return subscription;
}

function lost(message = "Parts of the stream are not kept any more."): RuncastError {
  return new RuncastError("position_lost", message);
}
