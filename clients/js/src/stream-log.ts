// The newest parts of one stream, in order, each once, and no more than fit. Pure.

import { RuncastError } from "./errors.js";
import type { Frame } from "./frame.js";
import type { Position } from "./request.js";
import { textOf } from "./stream-text.js";

export interface LogBounds {
  /** Parts to keep; older ones are let go. */
  readonly maxParts: number;
  /** Characters of joined text to keep. */
  readonly maxText: number;
}

export class StreamLog {
  readonly #from: "start" | "latest" | number;
  readonly #bounds: LogBounds;
  // Both hold up to twice what is kept: to take away from the front each time would move all of it.
  #parts: unknown[] = [];
  #times: number[] = [];
  #text = "";
  #cut = 0; // characters of text that are gone
  #next: number | undefined;

  constructor(from: "start" | "latest" | number, bounds: LogBounds) {
    this.#from = from;
    this.#bounds = bounds;
    if (from !== "latest") this.#next = from === "start" ? 0 : from;
  }

  get position(): Position {
    return { from: this.#next ?? this.#from };
  }

  /** Offset of the oldest part that is kept. */
  get first(): number {
    return (this.#next ?? 0) - this.size;
  }

  /** Offset of the part that comes next; undefined until the gateway has said it. */
  get next(): number | undefined {
    return this.#next;
  }

  /** How many parts are kept. */
  get size(): number {
    return Math.min(this.#parts.length, this.#bounds.maxParts);
  }

  get text(): string {
    return this.#text.slice(Math.max(this.#text.length - this.#bounds.maxText, 0));
  }

  /** How many characters of text came before `text`. */
  get textOffset(): number {
    return this.#cut + Math.max(this.#text.length - this.#bounds.maxText, 0);
  }

  /** When the parts that are kept were stored. */
  get times(): readonly number[] {
    return this.size > 0 ? this.#times.slice(-this.size) : [];
  }

  /** Parts from this offset on, as far as they are kept. */
  partsFrom(offset: number): readonly unknown[] {
    const wanted = (this.#next ?? 0) - Math.max(offset, this.first);
    return wanted > 0 ? this.#parts.slice(-wanted) : [];
  }

  /**
   * Take in what came.
   *
   * @throws RuncastError `stream_gap` if parts are missing before these: ask again from here.
   */
  take(frame: Frame): void {
    if (frame.type === "up-to-date") this.#next ??= frame.offset;
    if (frame.type !== "parts" || frame.parts.length === 0) return;
    const next = (this.#next ??= frame.offset);
    if (next < frame.offset) {
      throw new RuncastError(
        "stream_gap",
        "Parts of the stream are missing; it is asked for again.",
      );
    }
    const known = next - frame.offset;
    const fresh = frame.parts.slice(known);
    this.#next = next + fresh.length;
    for (const part of fresh) this.#parts.push(part);
    for (const time of frame.times.slice(known)) this.#times.push(time);
    this.#text += fresh.map(textOf).join("");
    this.#trim();
  }

  /** Begin anew: the gateway says where. */
  forget(): void {
    this.#parts = [];
    this.#times = [];
    this.#text = "";
    this.#cut = 0;
    this.#next = undefined;
  }

  #trim(): void {
    const { maxParts, maxText } = this.#bounds;
    if (this.#parts.length > 2 * maxParts) {
      this.#parts = this.#parts.slice(-maxParts);
      this.#times = this.#times.slice(-maxParts);
    }
    if (this.#text.length > 2 * maxText) {
      this.#cut = this.textOffset;
      this.#text = this.text;
    }
  }
}
