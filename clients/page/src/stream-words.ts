// How the parts of a stream read. Pure.

import { textOf } from "@runcast/client";

const SAMPLE = 50;

/** Whether the parts are pieces of one text, as a language model gives it, and not lines or objects. */
export function isText(parts: readonly unknown[]): boolean {
  const texts = parts.slice(0, SAMPLE).map(textOf).filter(Boolean);
  if (texts.length === 0) return parts.length === 0;
  if (texts.length === 1) return true;
  // Pieces of a text bring their blanks along; lines of a log stand without.
  return texts.some((text) => /^\s|\s$/.test(text) || text.length < 8);
}

/** Parts as lines, where they have no text. */
export function linesOf(parts: readonly unknown[]): string {
  return parts.map((part) => `${lineOf(part)}\n`).join("");
}

export function lineOf(part: unknown): string {
  return typeof part === "string" ? part : JSON.stringify(part);
}
