// Follow a run together with its streams, as they appear.

import type {
  Client,
  FollowOptions,
  PartOf,
  RunSnapshot,
  Store,
  StreamKey,
  StreamOptions,
  StreamSnapshot,
  TaskId,
} from "../index.js";
import { NO_RUN } from "../run-feed.js";
import { useFeed, useOnComplete, type HookOptions } from "./use-feed.js";

export type RunWithStreamsSnapshot<Id extends TaskId = TaskId> = RunSnapshot<Id> & {
  readonly streams: { readonly [Key in StreamKey<Id>]?: StreamSnapshot<PartOf<Id, Key>> };
};

export interface UseRunWithStreamsOptions<Id extends TaskId>
  extends HookOptions, Pick<FollowOptions, "skipColumns">, Omit<StreamOptions, "throttleMs"> {
  /** Only these streams; all that the run has if left out. */
  readonly keys?: readonly StreamKey<Id>[];
  readonly onComplete?: (snapshot: RunWithStreamsSnapshot<Id>) => void;
}

const NOTHING: RunWithStreamsSnapshot = { ...NO_RUN, streams: {} };

export function useRunWithStreams<Id extends TaskId = TaskId>(
  id: string | undefined,
  { enabled = true, onComplete, ...options }: UseRunWithStreamsOptions<Id> = {},
): RunWithStreamsSnapshot<Id> {
  const what = { id, options: options };
  const isKnown = enabled && id !== undefined;
  const snapshot = useFeed(what, isKnown, NOTHING, openBoth) as RunWithStreamsSnapshot<Id>;
  useOnComplete(snapshot, onComplete);
  return snapshot;
}

type Wanted = Omit<UseRunWithStreamsOptions<TaskId>, "enabled" | "onComplete">;

function openBoth(
  client: Client,
  { id = "", options }: { id?: string | undefined; options: Wanted },
): Store<RunWithStreamsSnapshot> {
  const run = client.run(id, options);
  const streams = new Map<string, Store<StreamSnapshot>>();
  let last = NOTHING;
  const getSnapshot = () => {
    const now = { ...run.getSnapshot(), streams: {} as Record<string, StreamSnapshot> };
    for (const [key, stream] of streams) now.streams[key] = stream.getSnapshot();
    return (last = isSame(last, now) ? last : now);
  };
  const subscribe = (listener: () => void) => {
    const stops = new Map<string, () => void>();
    const followNew = () => {
      for (const key of run.getSnapshot().run?.streams ?? []) {
        if (stops.has(key) || (options.keys && !options.keys.includes(key))) continue;
        const stream = streams.get(key) ?? client.stream(id, key, options);
        streams.set(key, stream);
        stops.set(key, stream.subscribe(listener));
      }
      listener();
    };
    const stop = run.subscribe(followNew);
    followNew();
    return () => {
      stop();
      for (const end of stops.values()) end();
    };
  };
  return { getSnapshot, subscribe };
}

function isSame(one: RunWithStreamsSnapshot, other: RunWithStreamsSnapshot): boolean {
  const { streams, ...rest } = one;
  const { streams: otherStreams, ...otherRest } = other;
  return equalFields(rest, otherRest) && equalFields(streams, otherStreams);
}

function equalFields(one: object, other: object): boolean {
  const entries = Object.entries(one);
  if (entries.length !== Object.keys(other).length) return false;
  return entries.every(([name, value]) => (other as Record<string, unknown>)[name] === value);
}
