// What a subscription asks for, as a WebSocket command and as the address of an event stream.

import type { TaskId } from "./types.js";

/** Runs of a batch; runs that have all of these tags, of this task, created since; or `{}`: all. */
export type ManyRuns<Id extends TaskId = TaskId> =
  | { readonly batch: string }
  | {
      readonly tags?: readonly string[] | string;
      readonly task?: Id;
      /** A duration before now such as `1h` or `7d`, or a date. */
      readonly createdAt?: string | Date;
    };

/** What is asked for, in one normal form: equal things have equal JSON. */
export type Subject =
  | {
      readonly runs:
        | { readonly run: string }
        | { readonly batch: string }
        | {
            readonly tags?: readonly string[];
            readonly task?: string;
            readonly createdAt?: string;
          };
      readonly skipColumns?: readonly string[];
      readonly stay?: boolean;
    }
  | { readonly stream: { readonly run: string; readonly key: string } };

/** Where to go on: the cursor of a run feed, or the place in a stream. Empty: at the start. */
export interface Position {
  readonly cursor?: string;
  readonly from?: "start" | "latest" | number;
}

export type Request = Subject & Position;

export function oneRun(run: string, skipColumns?: readonly string[], stay = false): Subject {
  return { runs: { run }, ...skipping(skipColumns), ...(stay && { stay }) };
}

export function manyRuns(
  runs: ManyRuns,
  skipColumns: readonly string[] | undefined,
  now: number,
): Subject {
  const skip = skipping(skipColumns);
  if ("batch" in runs) return { runs: { batch: runs.batch }, ...skip };
  const tags = typeof runs.tags === "string" ? [runs.tags] : runs.tags;
  return {
    runs: {
      ...(tags?.length && { tags: [...new Set(tags)].sort() }),
      ...(runs.task !== undefined && { task: runs.task }),
      ...(runs.createdAt !== undefined && { createdAt: dateOf(runs.createdAt, now) }),
    },
    ...skip,
  };
}

function skipping(columns: readonly string[] | undefined): { skipColumns?: readonly string[] } {
  return columns?.length ? { skipColumns: [...new Set(columns)].sort() } : {};
}

const SECONDS = {
  s: 1,
  m: 60,
  h: 3600,
  hr: 3600,
  d: 86_400,
  w: 604_800,
} as const;

/** A duration becomes a date, so that a subscription that resumes keeps its bound. */
function dateOf(createdAt: string | Date, now: number): string {
  if (createdAt instanceof Date) return createdAt.toISOString();
  if (!/^(\d+(w|d|hr|h|m|s))+$/.test(createdAt)) return createdAt;
  let seconds = 0;
  for (const [, count, unit] of createdAt.matchAll(/(\d+)(hr|[wdhms])/g)) {
    seconds += Number(count) * SECONDS[unit as keyof typeof SECONDS];
  }
  return new Date(Math.max(now - seconds * 1000, 0)).toISOString();
}
