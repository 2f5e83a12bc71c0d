// One stream, as an application follows it.

import { feedOf, type Feed, type Source } from "./feed.js";
import type { StreamLog } from "./stream-log.js";
import { readParts } from "./stream-reader.js";
import { textOf } from "./stream-text.js";
import { NOT_FOLLOWED, type Progress, type Subscription } from "./subscription.js";

export interface StreamOptions {
  /** Where to begin: the first part there is, the next one to come, or an offset. */
  readonly from?: "start" | "latest" | number;
  /** How many parts to keep, 1000 if not said; the newest ones are. */
  readonly maxParts?: number;
  /** How many characters of text to keep, a million if not said. */
  readonly maxText?: number;
  /** Tell of news at most once per so many milliseconds. */
  readonly throttleMs?: number;
}

export interface StreamSnapshot<Part = unknown> extends Progress {
  /** The newest parts, oldest first. */
  readonly parts: readonly Part[];
  /** When each of them was stored, in Unix milliseconds. */
  readonly times: readonly number[];
  /** Offset of the first of them. */
  readonly firstOffset: number;
  /** The text of all parts that came, also of those that are not kept; see `textOf`. */
  readonly text: string;
  /** How many characters came before it, which are not kept. */
  readonly textOffset: number;
}

/**
 * Iterating gives every part in order, each once. A reader that is slower than its writer holds
 * nobody up, and misses nothing: it reads from the gateway again what is not kept here any more.
 */
export interface StreamFeed<Part = unknown> extends Feed<StreamSnapshot<Part>, Part> {
  /** All text so far as one piece, then what is added. */
  text(): AsyncIterable<string>;
}

export const DEFAULT_STREAM = { from: "start", maxParts: 1000, maxText: 1_000_000 } as const;

export const NO_STREAM: StreamSnapshot = {
  ...NOT_FOLLOWED,
  parts: [],
  times: [],
  firstOffset: 0,
  text: "",
  textOffset: 0,
};

export interface StreamSource extends Source<StreamLog> {
  readonly signal: AbortSignal;
  /** A subscription of one reader alone. */
  page(log: StreamLog): Subscription<StreamLog>;
}

export function streamFeed(
  source: StreamSource,
  {
    from,
    maxParts,
    throttleMs,
  }: Required<Pick<StreamOptions, "from" | "maxParts">> & StreamOptions,
): StreamFeed {
  const batches = () => readParts(source, from, maxParts);
  async function* parts() {
    for await (const batch of batches()) yield* batch;
  }
  return {
    ...feedOf(source, streamSnapshot, parts, throttleMs),
    async *text() {
      for await (const parts of batches()) {
        const text = parts.map(textOf).join("");
        if (text !== "") yield text;
      }
    },
  };
}

function streamSnapshot(subscription: Subscription<StreamLog> | undefined): StreamSnapshot {
  if (!subscription) return NO_STREAM;
  const { data: log, progress } = subscription;
  return {
    ...progress,
    parts: log.partsFrom(log.first),
    times: log.times,
    firstOffset: log.first,
    text: log.text,
    textOffset: log.textOffset,
  };
}
