// Trigger a task.

import { useCallback, useState } from "react";
import type { PayloadOf, RunHandle, TaskId, TriggerOptions } from "../index.js";
import { useClient } from "./provider.js";

export interface UseTriggerOptions {
  /** A token that may trigger the task, such as a one-time token; the client's own if left out. */
  readonly token?: string;
}

export interface TaskTrigger<Id extends TaskId> {
  /** Trigger it. Rejects with a `RuncastError`, which `error` holds as well. */
  readonly trigger: (payload: PayloadOf<Id>, options?: TriggerOptions) => Promise<RunHandle<Id>>;
  /** What was triggered last. */
  readonly handle: RunHandle<Id> | undefined;
  readonly isTriggering: boolean;
  readonly error: Error | undefined;
}

type Progress<Id extends TaskId> = Omit<TaskTrigger<Id>, "trigger">;

const NOTHING = { handle: undefined, isTriggering: false, error: undefined };

export function useTriggerTask<Id extends TaskId>(
  task: Id,
  { token }: UseTriggerOptions = {},
): TaskTrigger<Id> {
  const client = useClient();
  const [progress, setProgress] = useState<Progress<Id>>(NOTHING);
  const trigger = useCallback(
    async (payload: PayloadOf<Id>, options?: TriggerOptions) => {
      setProgress({ ...NOTHING, isTriggering: true });
      try {
        const chosen = token === undefined ? client : client.withToken(token);
        const handle = await chosen.trigger(task, payload, options);
        setProgress({ ...NOTHING, handle });
        return handle;
      } catch (error) {
        setProgress({ ...NOTHING, error: error as Error });
        throw error;
      }
    },
    [client, task, token],
  );
  return { trigger, ...progress };
}
