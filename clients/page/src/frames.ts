// What came over the wire: the newest frames, and how many there were of each feed.

import type { Frame, Store, Subject } from "@runcast/client";

const MAX_FRAMES = 300;
const TELL_EVERY_MS = 100;

export interface Entry {
  readonly number: number;
  readonly at: number;
  readonly feed: string;
  readonly frame: Frame;
}

export interface FeedCounts {
  readonly frames: number;
  /** Where it would go on. */
  readonly position: string;
}

export interface FrameLogState {
  /** Newest first. */
  readonly entries: readonly Entry[];
  readonly feeds: ReadonlyMap<string, FeedCounts>;
}

export class FrameLog implements Store<FrameLogState> {
  readonly #listeners = new Set<() => void>();
  readonly #feeds = new Map<string, FeedCounts>();
  #entries: Entry[] = []; // oldest first, up to twice what is shown
  #number = 0;
  #state: FrameLogState = { entries: [], feeds: new Map() };
  #timer: ReturnType<typeof setTimeout> | undefined;

  readonly getSnapshot = (): FrameLogState => this.#state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  readonly add = (frame: Frame, of: Subject): void => {
    const feed = feedName(of);
    const known = this.#feeds.get(feed);
    this.#feeds.set(feed, {
      frames: (known?.frames ?? 0) + 1,
      position: positionOf(frame) ?? (frame.type === "reset" ? "" : (known?.position ?? "")),
    });
    this.#entries.push({ number: ++this.#number, at: Date.now(), feed, frame });
    if (this.#entries.length > 2 * MAX_FRAMES) this.#entries = this.#entries.slice(-MAX_FRAMES);
    this.#timer ??= setTimeout(this.#tell, TELL_EVERY_MS);
  };

  readonly #tell = (): void => {
    this.#timer = undefined;
    const entries = this.#entries.slice(-MAX_FRAMES).reverse();
    this.#state = { entries, feeds: new Map(this.#feeds) };
    for (const listener of [...this.#listeners]) listener();
  };
}

export function feedName(of: Subject): string {
  if ("stream" in of) return streamName(of.stream.run, of.stream.key);
  return "run" in of.runs ? of.runs.run : "Runs";
}

export function streamName(run: string, key: string): string {
  return `${run} ${key}`;
}

function positionOf(frame: Frame): string | undefined {
  if (frame.type === "parts") return `offset ${frame.offset + frame.parts.length}`;
  if (frame.type === "up-to-date" && frame.offset !== undefined) return `offset ${frame.offset}`;
  return "cursor" in frame ? frame.cursor : undefined;
}
