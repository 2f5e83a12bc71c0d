// All that is shown with a token: the list, one run, and the connection.

import type { ConnectionState, Progress, RunSnapshot } from "@runcast/client";
import { useClient, useRun, useRuns } from "@runcast/client/react";
import { useEffect, useSyncExternalStore, type ReactElement, type ReactNode } from "react";
import { ConnectionCard } from "./connection-card.js";
import { statusOf } from "./format.js";
import type { FrameLog } from "./frames.js";
import { Header, type HeaderState } from "./header.js";
import { RunDetail } from "./run-detail.js";
import { RunList } from "./run-list.js";
import type { Reason } from "./token-form.js";
import { startingPoint } from "./token.js";
import { useListKeys } from "./use-keys.js";
import { useNow } from "./use-now.js";
import { MAX_RUNS, namesIn, type View } from "./view.js";

const THROTTLE_MS = 50;

export interface BoardProps {
  readonly view: View;
  readonly token: string;
  readonly isFreshWanted: boolean;
  readonly frames: FrameLog;
  readonly isFormOpen: boolean;
  readonly onToggleForm: () => void;
  readonly form: (reason: Reason) => ReactNode;
}

export function Board({
  view,
  token,
  isFreshWanted,
  frames,
  isFormOpen,
  onToggleForm,
  form,
}: BoardProps): ReactElement {
  const client = useClient();
  const { everything } = startingPoint(token);
  const isListed = everything || Boolean(view.tags || view.task || view.batch);
  const list = useRuns(view.batch ? { batch: view.batch } : filterOf(view), {
    enabled: isListed,
    skipColumns: ["payload", "output", "error"],
    maxRuns: MAX_RUNS,
    throttleMs: THROTTLE_MS,
  });
  const one = useRun(view.run, {
    enabled: view.run !== "",
    stay: true,
    throttleMs: THROTTLE_MS,
  });
  const connection = useSyncExternalStore(
    client.connection.subscribe,
    client.connection.getSnapshot,
  );
  useListKeys(view);
  useTitle(one);

  const isExpired = isFreshWanted && connection.status !== "open";
  const reason = reasonOf(connection, isFreshWanted, isExpired);
  const isAsked = isFormOpen || reason !== "other";
  const feeds = [...(isListed ? [list] : []), ...(view.run ? [one] : [])];
  const state = stateOf(feeds, connection, isExpired);
  return (
    <>
      <Header
        state={state}
        words={WORDS[state]}
        countdown={<Countdown connection={connection} state={state} />}
      >
        <button
          type="button"
          id="token-button"
          className="quiet"
          aria-expanded={isAsked}
          aria-controls="token-form"
          onClick={onToggleForm}
        >
          Token
        </button>
      </Header>
      {isAsked && form(reason)}
      <main id="content" tabIndex={-1} className={view.run ? "has-run" : ""}>
        <RunList view={view} isListed={isListed} snapshot={list} />
        {view.run ? (
          <RunDetail
            key={view.run}
            id={view.run}
            view={view}
            snapshot={one}
            connection={connection}
          />
        ) : (
          <p className="placeholder" id="placeholder">
            Choose a run to see it change. <kbd>j</kbd> and <kbd>k</kbd> go through the list,{" "}
            <kbd>?</kbd> shows all keys.
          </p>
        )}
        <ConnectionCard
          token={token}
          connection={connection}
          frames={frames}
          feeds={[
            ...(isListed ? [{ label: "Runs", name: "Runs", progress: list }] : []),
            ...(view.run ? [{ label: "This run", name: view.run, progress: one }] : []),
          ]}
          runId={view.run}
          streams={one.run?.streams ?? []}
        />
      </main>
    </>
  );
}

function filterOf(view: View) {
  const since = view.since || "1d";
  return {
    ...(view.tags && { tags: namesIn(view.tags) }),
    ...(view.task && { task: view.task }),
    ...(since !== "all" && { createdAt: since }),
  };
}

const WORDS: Readonly<Record<HeaderState, string>> = {
  idle: "No token",
  live: "Live",
  connecting: "Connecting",
  retrying: "Retrying",
  offline: "Offline",
  expired: "Token expired",
  refused: "Refused",
};

function reasonOf(connection: ConnectionState, isFreshWanted: boolean, isExpired: boolean): Reason {
  if (isExpired) return "expired";
  if (isFreshWanted) return "ending";
  return connection.status === "refused" ? "refused" : "other";
}

function stateOf(
  feeds: readonly Progress[],
  connection: ConnectionState,
  isExpired: boolean,
): HeaderState {
  if (isExpired) return "expired";
  if (connection.status === "refused" || feeds.some(({ status }) => status === "failed"))
    return "refused";
  if (connection.status === "waiting" || feeds.some(({ status }) => status === "retrying"))
    return navigator.onLine ? "retrying" : "offline";
  const isLive = feeds.every(({ status }) => status === "live" || status === "ended");
  if (isLive && connection.status === "open") return "live";
  if (!navigator.onLine) return "offline";
  return connection.problem ? "retrying" : "connecting";
}

function Countdown({
  connection: { retryAt },
  state,
}: {
  connection: ConnectionState;
  state: HeaderState;
}): ReactElement | null {
  const now = useNow(1000);
  if (retryAt === undefined || (state !== "retrying" && state !== "offline")) return null;
  const seconds = Math.max(0, Math.ceil((retryAt - now) / 1000));
  return <>{state === "offline" ? `retry in ${seconds} s` : `in ${seconds} s`}</>;
}

function useTitle({ run }: RunSnapshot): void {
  const title = run ? `${statusOf(run.status)[1]} · ${run.taskIdentifier} · runcast` : "runcast";
  useEffect(() => {
    document.title = title;
  }, [title]);
}
