// One run with everything that the token may see of it.

import type { ConnectionState, Run, RunSnapshot } from "@runcast/client";
import { useEffect, useRef, useState, type ReactElement, type ReactNode } from "react";
import { ClippedText } from "./clipped-text.js";
import { Children } from "./children.js";
import { CopyButton } from "./copy-button.js";
import { duration, progress } from "./format.js";
import { Metadata } from "./metadata.js";
import { Pill, ProgressBar, Tags } from "./run-parts.js";
import { RunStreams } from "./run-streams.js";
import { Timeline } from "./timeline.js";
import { Value } from "./value.js";
import { fragmentOf, hrefOf, type View } from "./view.js";

export const NARROW = "(max-width: 60rem)";

export function RunDetail({
  id,
  view,
  snapshot,
  connection,
}: {
  id: string;
  view: View;
  snapshot: RunSnapshot;
  connection: ConnectionState;
}): ReactElement {
  // What was seen last stays when the run is gone, or its token.
  const [last, setLast] = useState(snapshot.run);
  if (snapshot.run && snapshot.run !== last) setLast(snapshot.run);
  const run = snapshot.run ?? last;
  const article = useRef<HTMLElement>(null);
  useEffect(() => {
    // On a narrow page the run takes the place of the list, and gives it back.
    if (matchMedia(NARROW).matches) {
      scrollTo(0, 0);
      article.current?.focus({ preventScroll: true });
    }
    return () => {
      setTimeout(() => {
        const row = document.querySelector<HTMLElement>(
          `#rows [data-run="${CSS.escape(id)}"] .row`,
        );
        if (document.activeElement === document.body) row?.focus();
      });
    };
  }, [id]);
  return (
    <article
      className="detail"
      id="detail"
      aria-labelledby="detail-title"
      tabIndex={-1}
      ref={article}
    >
      <a className="back" id="back" href={fragmentOf({ ...view, run: "" })}>
        ← All runs
      </a>
      <div className="card">
        <div className="detail-head">
          <div className="detail-name">
            <h2 id="detail-title">{run?.taskIdentifier ?? "…"}</h2>
            <span className="id-line">
              <code className="id" id="detail-id">
                {id}
              </code>
              <CopyButton text={id} />
            </span>
          </div>
          <Pill status={run?.status} id="detail-status" large />
        </div>
        <Notice snapshot={snapshot} hasRun={run !== undefined} />
        {run && <Progress run={run} />}
        {run && <Tags tags={run.tags} as="ul" id="detail-tags" />}
        {run && <Facts run={run} view={view} />}
      </div>
      {run && (
        <>
          <RunStreams
            runId={id}
            keys={run.streams ?? []}
            isOver={run.finishedAt !== undefined}
            transport={connection.transport}
          />
          <Timeline run={run} />
          <Children run={run} view={view} />
          {run.error && (
            <section className="card" id="error-card">
              <h3>Error</h3>
              <pre className="error" id="error" tabIndex={0}>
                <ClippedText text={errorText(run.error)} />
              </pre>
            </section>
          )}
          <Metadata run={run} />
          <div className="pair">
            <Value
              id="payload"
              title="Payload"
              value={run.payload}
              absent="No payload, or this token may not see it."
            />
            <Value
              id="output"
              title="Output"
              value={run.output}
              absent={run.finishedAt ? "No output." : "Not there yet."}
            />
          </div>
        </>
      )}
    </article>
  );
}

function Notice({
  snapshot,
  hasRun,
}: {
  snapshot: RunSnapshot;
  hasRun: boolean;
}): ReactElement | null {
  const { status, run, error, endReason } = snapshot;
  let words = "";
  if (error) words = error.message;
  else if (endReason === "deleted") words = "This run was deleted. Below is its last state.";
  else if (status === "live" && !run)
    words = hasRun
      ? "This run was deleted, or is not visible with this token any more. Below is what was seen last."
      : "There is no such run, or it is not visible with this token.";
  if (!words) return null;
  return (
    <p className="notice" id="detail-notice" role="status">
      {words}
    </p>
  );
}

function Progress({ run }: { run: Run }): ReactElement | null {
  const value = progress(run);
  if (value === undefined) return null;
  return (
    <div className="progress-line" id="detail-progress">
      <ProgressBar value={value} status={run.status} />
      <span className="percent">{Math.round(value * 100)} %</span>
    </div>
  );
}

function Facts({ run, view }: { run: Run; view: View }): ReactElement {
  const facts: [string, ReactNode][] = [
    ["Duration", run.durationMs > 0 && duration(run.durationMs)],
    ["Attempts", run.attemptCount],
    ["Number", run.number],
    ["Queue", run.queue],
    [
      "Batch",
      run.batchId && (
        <a href={fragmentOf({ ...view, batch: run.batchId, tags: "", task: "" })}>{run.batchId}</a>
      ),
    ],
    ["Parent", run.parentId && <a href={hrefOf(view, run.parentId)}>{run.parentId}</a>],
    ["Cost", run.costInCents > 0 && `${run.costInCents.toFixed(4)} ¢`],
    ["Idempotency key", run.idempotencyKey],
    ["Revision", run.revision],
  ];
  return (
    <dl className="facts" id="facts">
      {facts.map(
        ([name, value]) =>
          value !== undefined &&
          value !== false &&
          value !== "" && (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ),
      )}
    </dl>
  );
}

function errorText({ name, message, stackTrace, causes }: NonNullable<Run["error"]>): string {
  const lines = [name ? `${name}: ${message}` : message];
  if (stackTrace) lines.push(stackTrace);
  for (const cause of causes ?? []) lines.push(`caused by ${JSON.stringify(cause, null, 2)}`);
  return lines.join("\n").trim();
}
