// Follow one run.

import type { FollowOptions, RunSnapshot, TaskId } from "../index.js";
import { NO_RUN } from "../run-feed.js";
import type { Client } from "../index.js";
import { useFeed, useOnComplete, type HookOptions } from "./use-feed.js";

export interface UseRunOptions<Id extends TaskId>
  extends HookOptions, Pick<FollowOptions, "skipColumns"> {
  /** The run is finished or deleted, or cannot be followed: see `status` and `error`. */
  readonly onComplete?: (snapshot: RunSnapshot<Id>) => void;
}

/** `id`: undefined while it is not known yet. */
export function useRun<Id extends TaskId = TaskId>(
  id: string | undefined,
  { enabled = true, throttleMs = 0, skipColumns = [], onComplete }: UseRunOptions<Id> = {},
): RunSnapshot<Id> {
  const snapshot = useFeed(
    { id, skipColumns, throttleMs },
    enabled && id !== undefined,
    NO_RUN,
    openRun,
  ) as RunSnapshot<Id>;
  useOnComplete(snapshot, onComplete);
  return snapshot;
}

function openRun(
  client: Client,
  { id = "", ...options }: { id?: string | undefined } & FollowOptions,
) {
  return client.run(id, options);
}
