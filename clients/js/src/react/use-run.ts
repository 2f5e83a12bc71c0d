// Follow one run.

import type { FollowOptions, RunSnapshot, TaskId } from "../index.js";
import { NO_RUN } from "../run-feed.js";
import type { Client } from "../index.js";
import { useFeed, useOnComplete, type HookOptions } from "./use-feed.js";

export interface UseRunOptions<Id extends TaskId>
  extends HookOptions, Pick<FollowOptions, "skipColumns"> {
  /** Go on when the run is finished: its metadata and tags may still change. */
  readonly stay?: boolean;
  /** The run is finished or deleted, or cannot be followed: see `status` and `error`. */
  readonly onComplete?: (snapshot: RunSnapshot<Id>) => void;
}

/** `id`: undefined while it is not known yet. */
export function useRun<Id extends TaskId = TaskId>(
  id: string | undefined,
  {
    enabled = true,
    throttleMs = 0,
    skipColumns = [],
    stay = false,
    onComplete,
  }: UseRunOptions<Id> = {},
): RunSnapshot<Id> {
  const snapshot = useFeed(
    { id, skipColumns, throttleMs, stay },
    enabled && id !== undefined,
    NO_RUN,
    openRun,
  ) as RunSnapshot<Id>;
  useOnComplete(snapshot, onComplete);
  return snapshot;
}

function openRun(
  client: Client,
  { id = "", ...options }: { id?: string | undefined; stay: boolean } & FollowOptions,
) {
  return client.run(id, options);
}
