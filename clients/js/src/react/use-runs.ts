// Follow many runs: a batch, or all that have some tags, or are of a task.

import type { Client, ManyRuns, RunsOptions, RunsSnapshot, TaskId } from "../index.js";
import { NO_RUNS } from "../run-feed.js";
import { useFeed, type HookOptions } from "./use-feed.js";

export type UseRunsOptions = HookOptions & Pick<RunsOptions, "skipColumns" | "maxRuns">;

export function useRuns<Id extends TaskId = TaskId>(
  which: ManyRuns<Id>,
  { enabled = true, throttleMs = 0, skipColumns = [], maxRuns }: UseRunsOptions = {},
): RunsSnapshot<Id> {
  const what = { which, skipColumns, throttleMs, ...(maxRuns !== undefined && { maxRuns }) };
  return useFeed(what, enabled, NO_RUNS, openRuns) as RunsSnapshot<Id>;
}

function openRuns(client: Client, { which, ...options }: { which: ManyRuns } & RunsOptions) {
  return client.runs(which, options);
}
