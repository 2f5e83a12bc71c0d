// Pages of runs, read when asked for or every so often: for lists that need not be live.

import { useCallback, useEffect, useState } from "react";
import type { ListedRun, ListQuery, RunPage, TaskId } from "../index.js";
import { useClient } from "./provider.js";

export interface UseRunsListOptions {
  readonly enabled?: boolean;
  /** Read again every so many milliseconds, while the page is visible. */
  readonly refreshMs?: number;
}

export interface RunsList<Id extends TaskId> {
  readonly runs: readonly ListedRun<Id>[];
  /** To be given as `after` and `before` of the query; undefined where there is no such page. */
  readonly next: string | undefined;
  readonly previous: string | undefined;
  readonly isLoading: boolean;
  readonly error: Error | undefined;
  readonly refresh: () => void;
}

interface Answer<Id extends TaskId> {
  readonly key: string;
  readonly page?: RunPage<Id>;
  readonly error?: Error;
}

export function useRunsList<Id extends TaskId = TaskId>(
  query: ListQuery<Id> = {},
  { enabled = true, refreshMs = 0 }: UseRunsListOptions = {},
): RunsList<Id> {
  const client = useClient();
  const key = JSON.stringify(query);
  const [round, setRound] = useState(0);
  const [answer, setAnswer] = useState<Answer<Id>>({ key: "" });
  const refresh = useCallback(() => {
    setRound((before) => before + 1);
  }, []);

  useEffect(() => {
    if (!enabled) return undefined;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const again = () => {
      if (abort.signal.aborted || refreshMs <= 0) return;
      const isHidden = typeof document !== "undefined" && document.visibilityState === "hidden";
      timer = setTimeout(isHidden ? again : refresh, refreshMs);
    };
    client.list(JSON.parse(key) as ListQuery<Id>, abort.signal).then(
      (page) => {
        if (abort.signal.aborted) return;
        setAnswer({ key, page });
        again();
      },
      (error: unknown) => {
        if (abort.signal.aborted) return;
        // What was read before stays in view.
        setAnswer((before) => ({ ...(before.key === key && before), key, error: error as Error }));
        again();
      },
    );
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [client, key, enabled, refreshMs, round, refresh]);

  const { page, error } = answer.key === key ? answer : { page: undefined, error: undefined };
  return {
    runs: page?.data ?? [],
    next: page?.pagination.next,
    previous: page?.pagination.previous,
    isLoading: enabled && !page && !error,
    error,
    refresh,
  };
}
