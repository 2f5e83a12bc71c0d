// Follow many runs: a batch, or all that have some tags, or are of a task.

import type { Client, FollowOptions, ManyRuns, RunsSnapshot, TaskId } from "../index.js";
import { NO_RUNS } from "../run-feed.js";
import { useFeed, type HookOptions } from "./use-feed.js";

export type UseRunsOptions = HookOptions & Pick<FollowOptions, "skipColumns">;

export function useRuns<Id extends TaskId = TaskId>(
  which: ManyRuns<Id>,
  { enabled = true, throttleMs = 0, skipColumns = [] }: UseRunsOptions = {},
): RunsSnapshot<Id> {
  const what = { which, skipColumns, throttleMs };
  return useFeed(what, enabled, NO_RUNS, openRuns) as RunsSnapshot<Id>;
}

function openRuns(client: Client, { which, ...options }: { which: ManyRuns } & FollowOptions) {
  return client.runs(which, options);
}
