// The newest parts of one stream, in order, each once, and no more than fit. Pure.

import { clipped } from "./format.js";
import { textOf } from "./stream-text.js";

export const MAX_PARTS = 2000;
export const MAX_CHARACTERS = 200_000;

export class StreamLog {
  parts = []; // oldest first, without a gap: {offset, at, line, text}; text null: not text
  begin = 0; // the first offset that came: larger than 0 if the gateway keeps no more
  next = 0;
  generation = 0; // grows when all that was known is void
  isText = null; // told by the first part that tells
  #size = 0;

  get first() {
    return this.parts[0]?.offset ?? this.next;
  }

  // Take a part; around a resume the same one may come twice. id: "<milliseconds>-<offset>".
  put(id, line) {
    const [at, offset] = id.split("-").map(Number);
    if (offset < this.next) return;
    if (this.parts.length === 0) this.begin = offset;
    const text = textOf(line);
    if (text !== "") this.isText ??= text !== null;
    this.parts.push({
      offset,
      at,
      line: clipped(line, MAX_CHARACTERS),
      text: text === null ? null : clipped(text, MAX_CHARACTERS),
    });
    this.next = offset + 1;
    this.#size += Math.min(line.length, MAX_CHARACTERS);
    while (this.parts.length > 1 && this.#isOverfull()) {
      this.#size -= Math.min(this.parts.shift().line.length, MAX_CHARACTERS);
    }
  }

  clear() {
    this.generation += 1;
    this.parts = [];
    this.begin = this.next = this.#size = 0;
    this.isText = null;
  }

  #isOverfull() {
    return this.parts.length > MAX_PARTS || this.#size > MAX_CHARACTERS;
  }
}
