// How the page is connected, what it follows, and the frames as they came.

import type { ConnectionState, Frame, Progress } from "@runcast/client";
import { useClient, useRunStream } from "@runcast/client/react";
import { useEffect, useState, useSyncExternalStore, type ReactElement } from "react";
import { clipped, count, duration, time } from "./format.js";
import { streamName, type Entry, type FrameLog } from "./frames.js";
import { feedWords, STREAM } from "./stream-card.js";
import { claimsOf } from "./token.js";
import { useNow } from "./use-now.js";
import { VirtualRows } from "./virtual-rows.js";

const PING_EVERY_MS = 5000;
const MAX_LINE = 300;
const MAX_FRAME = 20_000;
const FIRST_STREAMS = 3;

interface ShownFeed {
  readonly label: string;
  readonly name: string;
  readonly progress: Progress;
}

export function ConnectionCard({
  token,
  connection,
  frames,
  feeds,
  runId,
  streams,
}: {
  token: string;
  connection: ConnectionState;
  frames: FrameLog;
  feeds: readonly ShownFeed[];
  runId: string;
  streams: readonly string[];
}): ReactElement {
  const { entries, feeds: counts } = useSyncExternalStore(frames.subscribe, frames.getSnapshot);
  return (
    <section className="wire card" aria-labelledby="wire-title">
      <h3 id="wire-title">Connection</h3>
      <ConnectionFacts token={token} connection={connection} />
      <div id="feeds" className="feeds">
        {feeds.map(({ label, name, progress }) => (
          <FeedRow key={name} label={label} progress={progress} counts={counts.get(name)} />
        ))}
        {streams.slice(0, FIRST_STREAMS).map((key) => (
          <StreamRow
            key={key}
            runId={runId}
            streamKey={key}
            counts={counts.get(streamName(runId, key))}
          />
        ))}
      </div>
      <RawFrames entries={entries} runId={runId} />
    </section>
  );
}

const TRANSPORTS = {
  websocket: "WebSocket",
  sse: "Server-Sent Events",
} as const;

function ConnectionFacts({
  token,
  connection,
}: {
  token: string;
  connection: ConnectionState;
}): ReactElement {
  const { status, transport, latencyMs, reconnects, problem } = connection;
  const client = useClient();
  useEffect(() => {
    if (status !== "open") return undefined;
    client.ping();
    const timer = setInterval(() => {
      if (!document.hidden) client.ping();
    }, PING_EVERY_MS);
    return () => {
      clearInterval(timer);
    };
  }, [client, status]);
  return (
    <>
      <dl className="facts" id="connection-facts">
        <Fact name="Transport">{transport ? TRANSPORTS[transport] : "–"}</Fact>
        <Fact name="Latency">{latencyMs === undefined ? "–" : `${latencyMs} ms`}</Fact>
        <Fact name="Reconnects">{Math.max(0, reconnects)}</Fact>
        <Fact name="Token">
          <TokenLife token={token} />
        </Fact>
      </dl>
      {problem && problem.code !== "expired_token" && (
        <p className="feed-message">{problem.message}</p>
      )}
    </>
  );
}

function Fact({ name, children }: { name: string; children: React.ReactNode }): ReactElement {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function TokenLife({ token }: { token: string }): ReactElement {
  const now = useNow(1000);
  const { exp, scopes } = claimsOf(token);
  const rights = Array.isArray(scopes) ? scopes.join(" ") : "secret key: everything";
  const left = exp === undefined ? undefined : exp * 1000 - now;
  return (
    <>
      <span className="scopes">{rights}</span>
      {left !== undefined && (
        <span className="aside-line">
          {left > 0 ? `ends in ${duration(Math.ceil(left / 1000) * 1000)}` : "has ended"}
        </span>
      )}
    </>
  );
}

function StreamRow({
  runId,
  streamKey,
  counts,
}: {
  runId: string;
  streamKey: string;
  counts: { frames: number; position: string } | undefined;
}): ReactElement | null {
  const progress = useRunStream(runId, streamKey, {
    ...STREAM,
    enabled: counts !== undefined,
  });
  if (!counts) return null;
  return <FeedRow label={`stream ${streamKey}`} progress={progress} counts={counts} />;
}

function FeedRow({
  label,
  progress,
  counts,
}: {
  label: string;
  progress: Progress;
  counts: { frames: number; position: string } | undefined;
}): ReactElement {
  const { problem, error, resets } = progress;
  // Of an expired token the form above says what to do.
  const message = error?.message ?? (problem?.code === "expired_token" ? "" : problem?.message);
  return (
    <div className="feed" data-feed={label} data-state={progress.status}>
      <div className="feed-line">
        <strong className="feed-name">{label}</strong>
        <span className="feed-state">{feedWords(progress)}</span>
        <span className="feed-numbers">
          {count(counts?.frames ?? 0, "frame")}
          {resets > 0 && ` · ${count(resets, "reset")}`}
        </span>
        <code className="cursor" title="Where it would go on">
          {counts?.position || "none yet"}
        </code>
      </div>
      {message && <p className="feed-message">{message}</p>}
    </div>
  );
}

function RawFrames({ entries, runId }: { entries: readonly Entry[]; runId: string }): ReactElement {
  const [picked, setPicked] = useState<Entry>();
  return (
    <>
      <h4>Last frames</h4>
      {entries.length === 0 && <p className="none">Nothing yet.</p>}
      <div id="raw">
        <VirtualRows
          className="raw"
          label="Last frames, newest first"
          count={entries.length}
          stays={false}
          row={(index) => {
            const entry = entries[index];
            if (!entry) return null;
            return (
              <button
                type="button"
                className="part"
                aria-expanded={picked === entry}
                onClick={() => {
                  setPicked(picked === entry ? undefined : entry);
                }}
              >
                <span className="at">{time(entry.at)}</span>
                <span className="from">{fromWords(entry.feed, runId)}</span>
                <span className="type">{entry.frame.type}</span>
                <span className="data">
                  {clipped(JSON.stringify(dataOf(entry.frame)), MAX_LINE)}
                </span>
              </button>
            );
          }}
        />
        {picked && (
          <pre className="picked" tabIndex={0}>
            {clipped(JSON.stringify(picked.frame, null, 2), MAX_FRAME)}
          </pre>
        )}
      </div>
    </>
  );
}

function fromWords(feed: string, runId: string): string {
  if (feed === runId) return "This run";
  return feed.startsWith(`${runId} `) ? feed.slice(runId.length + 1) : feed;
}

/** What is in a frame beside its type. */
function dataOf({ type, ...rest }: Frame): unknown {
  const inner = (rest as Record<string, unknown>)[type];
  return inner ?? rest;
}
