// Trigger a task, then follow its run with the token that came with it.

import { useMemo, useSyncExternalStore } from "react";
import type { RunSnapshot, TaskId } from "../index.js";
import { NO_RUN } from "../run-feed.js";
import { useClient } from "./provider.js";
import { useOnComplete } from "./use-feed.js";
import type { UseRunOptions } from "./use-run.js";
import { useTriggerTask, type TaskTrigger, type UseTriggerOptions } from "./use-trigger-task.js";

export type TriggeredRun<Id extends TaskId> = TaskTrigger<Id> & {
  /** The run that was triggered last, as `useRun` gives it. */
  readonly followed: RunSnapshot<Id>;
};

export function useTriggeredRun<Id extends TaskId>(
  task: Id,
  options: UseTriggerOptions & Omit<UseRunOptions<Id>, "enabled"> = {},
): TriggeredRun<Id> {
  const client = useClient();
  const triggered = useTriggerTask(task, options);
  const { handle } = triggered;
  const { throttleMs = 0, skipColumns } = options;
  const columns = skipColumns?.join();
  const store = useMemo(() => {
    if (!handle) return { subscribe: () => () => undefined, getSnapshot: () => NO_RUN };
    return client.withToken(handle.publicAccessToken).run(handle.id, {
      throttleMs,
      ...(columns && { skipColumns: columns.split(",") as NonNullable<typeof skipColumns> }),
    });
  }, [client, handle, throttleMs, columns]);
  const followed = useSyncExternalStore(
    store.subscribe,
    store.getSnapshot,
    () => NO_RUN,
  ) as RunSnapshot<Id>;
  useOnComplete(followed, options.onComplete);
  return { ...triggered, followed };
}
