// One run, or a set of runs, as an application follows them.

import { feedOf, type Feed, type Source } from "./feed.js";
import type { RunSet } from "./run-set.js";
import { NOT_FOLLOWED, type Progress, type Subscription } from "./subscription.js";
import type { Run, TaskId } from "./types.js";

export interface RunSnapshot<Id extends TaskId = TaskId> extends Progress {
  /** As it is now; undefined until it came, and when it was deleted. */
  readonly run: Run<Id> | undefined;
}

export interface RunsSnapshot<Id extends TaskId = TaskId> extends Progress {
  /** Newest first. A run that did not change stays the same object. */
  readonly runs: readonly Run<Id>[];
}

/**
 * Iterating gives each run that changed in its newest state: who is slow skips states in between.
 * It ends when nothing more will come, and throws a `RuncastError` when that is because of one.
 */
export type RunFeed<Id extends TaskId = TaskId> = Feed<RunSnapshot<Id>, Run<Id>>;
export type RunsFeed<Id extends TaskId = TaskId> = Feed<RunsSnapshot<Id>, Run<Id>>;

export const NO_RUN: RunSnapshot = { ...NOT_FOLLOWED, run: undefined };
export const NO_RUNS: RunsSnapshot = { ...NOT_FOLLOWED, runs: [] };

export function runFeed(source: Source<RunSet>, throttleMs?: number): RunFeed {
  return feedOf(source, runSnapshot, () => changedRuns(source), throttleMs);
}

export function runsFeed(source: Source<RunSet>, throttleMs?: number): RunsFeed {
  return feedOf(source, runsSnapshot, () => changedRuns(source), throttleMs);
}

function runSnapshot(subscription: Subscription<RunSet> | undefined): RunSnapshot {
  return subscription ? { ...subscription.progress, run: subscription.data.runs[0] } : NO_RUN;
}

function runsSnapshot(subscription: Subscription<RunSet> | undefined): RunsSnapshot {
  return subscription ? { ...subscription.progress, runs: subscription.data.runs } : NO_RUNS;
}

async function* changedRuns(source: Source<RunSet>): AsyncGenerator<Run, void, undefined> {
  const subscription = source.obtain();
  const leave = subscription.follow();
  const seen = new WeakSet<Run>();
  try {
    for (;;) {
      const fresh = subscription.data.runs.filter((run) => !seen.has(run)).reverse();
      for (const { id } of fresh) {
        const run = subscription.data.get(id); // it may have changed while the last one was looked at
        if (!run || seen.has(run)) continue;
        seen.add(run);
        yield run;
      }
      if (fresh.length === 0 && (await subscription.news())) return;
    }
  } finally {
    leave();
  }
}
