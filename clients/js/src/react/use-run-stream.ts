// Follow a stream of a run.

import type { Client, PartOf, StreamKey, StreamOptions, StreamSnapshot, TaskId } from "../index.js";
import { NO_STREAM } from "../stream-feed.js";
import { useFeed, useOnComplete, type HookOptions } from "./use-feed.js";

export interface UseRunStreamOptions<Part> extends HookOptions, StreamOptions {
  /** No more parts will come. */
  readonly onComplete?: (snapshot: StreamSnapshot<Part>) => void;
}

export function useRunStream<Part = unknown>(
  runId: string | undefined,
  key: string,
  options?: UseRunStreamOptions<Part>,
): StreamSnapshot<Part>;
export function useRunStream<Id extends TaskId, Key extends StreamKey<Id>>(
  runId: string | undefined,
  key: Key,
  options?: UseRunStreamOptions<PartOf<Id, Key>>,
): StreamSnapshot<PartOf<Id, Key>>;
export function useRunStream(
  runId: string | undefined,
  key: string,
  { enabled = true, onComplete, ...options }: UseRunStreamOptions<unknown> = {},
): StreamSnapshot {
  const isKnown = enabled && runId !== undefined;
  const snapshot = useFeed({ runId, key, options }, isKnown, NO_STREAM, openStream);
  useOnComplete(snapshot, onComplete);
  return snapshot;
}

function openStream(
  client: Client,
  { runId = "", key, options }: { runId?: string | undefined; key: string; options: StreamOptions },
) {
  return client.stream(runId, key, options);
}
