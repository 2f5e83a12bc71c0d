// What `@runcast/client/react` gives people.

export { RuncastProvider, useClient } from "./provider.js";
export type { HookOptions } from "./use-feed.js";
export { useRun, type UseRunOptions } from "./use-run.js";
export { useRunStream, type UseRunStreamOptions } from "./use-run-stream.js";
export {
  useRunWithStreams,
  type RunWithStreamsSnapshot,
  type UseRunWithStreamsOptions,
} from "./use-run-with-streams.js";
export { useRuns, type UseRunsOptions } from "./use-runs.js";
export { useRunsList, type RunsList, type UseRunsListOptions } from "./use-runs-list.js";
export { useTriggerTask, type TaskTrigger, type UseTriggerOptions } from "./use-trigger-task.js";
export { useTriggeredRun, type TriggeredRun } from "./use-triggered-run.js";
