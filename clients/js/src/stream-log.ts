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
  #parts: unknown[] = [];
  #first = 0;
  #next: number | undefined;
  #text = "";
  #cut = false;

  constructor(from: "start" | "latest" | number, bounds: LogBounds) {
    this.#from = from;
    this.#bounds = bounds;
    if (from !== "latest") this.#begin(from === "start" ? 0 : from);
  }

  get position(): Position {
    return { from: this.#next ?? this.#from };
  }

  /** Offset of the oldest part that is kept. */
  get first(): number {
    return this.#first;
  }

  /** Offset of the part that comes next; undefined until the gateway has said it. */
  get next(): number | undefined {
    return this.#next;
  }

  get size(): number {
    return this.#parts.length;
  }

  get text(): string {
    return this.#text;
  }

  /** Whether the text lacks its beginning, because it is longer than may be kept. */
  get isTextCut(): boolean {
    return this.#cut;
  }

  /** Parts from this offset on, as far as they are kept. */
  partsFrom(offset: number): readonly unknown[] {
    return this.#parts.slice(Math.max(offset - this.#first, 0));
  }

  /**
   * Take in what came.
   *
   * @throws RuncastError `stream_gap` if parts are missing before these: ask again from here.
   */
  take(frame: Frame): void {
    if (frame.type === "up-to-date") this.#begin(frame.offset);
    if (frame.type !== "parts" || frame.parts.length === 0) return;
    this.#begin(frame.offset);
    const known = (this.#next ?? 0) - frame.offset;
    if (known < 0) {
      throw new RuncastError(
        "stream_gap",
        "Parts of the stream are missing; it is asked for again.",
      );
    }
    const fresh = frame.parts.slice(known);
    this.#next = (this.#next ?? 0) + fresh.length;
    for (const part of fresh) this.#parts.push(part);
    this.#trim();
    this.#addText(fresh.map(textOf).join(""));
  }

  /** Begin anew: the gateway says where. */
  forget(): void {
    this.#parts = [];
    this.#text = "";
    this.#cut = false;
    this.#next = undefined;
  }

  #begin(offset: number | undefined): void {
    if (this.#next !== undefined || offset === undefined) return;
    this.#next = this.#first = offset;
  }

  #trim(): void {
    const surplus = this.#parts.length - this.#bounds.maxParts;
    if (surplus > 0) {
      this.#parts.splice(0, surplus);
      this.#first += surplus;
    }
  }

  #addText(text: string): void {
    const whole = this.#text + text;
    const { maxText } = this.#bounds;
    this.#cut ||= whole.length > maxText;
    this.#text = whole.slice(Math.max(whole.length - maxText, 0));
  }
}
