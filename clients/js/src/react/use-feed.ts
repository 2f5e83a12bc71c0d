// The skin that all following hooks share.

import { useEffect, useMemo, useRef, useSyncExternalStore } from "react";
import type { Client, Progress, Store } from "../index.js";
import { useClient } from "./provider.js";

export interface HookOptions {
  /** False: follow nothing for now. */
  readonly enabled?: boolean;
  /** Render news at most once per so many milliseconds. */
  readonly throttleMs?: number;
}

const NEVER = (): (() => void) => () => undefined;

/**
 * Follow what `open` gives for `what`, as long as `enabled` is true; equal values of `what`, as JSON
 * compares them, are the same thing.
 */
export function useFeed<What, Snapshot>(
  what: What,
  enabled: boolean,
  idle: Snapshot,
  open: (client: Client, what: What) => Store<Snapshot>,
): Snapshot {
  const client = useClient();
  const key = JSON.stringify(what);
  const store = useMemo(
    () =>
      enabled
        ? open(client, JSON.parse(key) as What)
        : { subscribe: NEVER, getSnapshot: () => idle },
    [client, key, enabled, idle, open],
  );
  return useSyncExternalStore(store.subscribe, store.getSnapshot, () => idle);
}

/** Call back once when what is followed is over. */
export function useOnComplete<Snapshot extends Progress>(
  snapshot: Snapshot,
  onComplete: ((snapshot: Snapshot) => void) | undefined,
): void {
  const isOver = snapshot.status === "ended" || snapshot.status === "failed";
  const told = useRef<Snapshot>(undefined);
  useEffect(() => {
    if (!isOver) told.current = undefined;
    else if (told.current !== snapshot) {
      told.current = snapshot;
      onComplete?.(snapshot);
    }
  }, [isOver, snapshot, onComplete]);
}
