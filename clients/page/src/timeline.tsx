// The life of a run as a bar of spans, and its moments.

import type { Run } from "@runcast/client";
import type { ReactElement } from "react";
import { duration, time } from "./format.js";
import { spansOf, type Span } from "./run-spans.js";
import { useNow } from "./use-now.js";

const MOMENTS = [
  ["Created", "createdAt"],
  ["Delayed until", "delayedUntil"],
  ["Queued", "queuedAt"],
  ["Started", "startedAt"],
  ["Finished", "finishedAt"],
  ["Expired", "expiredAt"],
] as const;

export function Timeline({ run }: { run: Run }): ReactElement {
  const now = useNow(1000, run.finishedAt === undefined);
  const spans = spansOf(run, now);
  const whole = (spans.at(-1)?.to ?? now) - Date.parse(run.createdAt);
  const moments = MOMENTS.flatMap(([name, field]) => {
    const moment = run[field];
    return moment === undefined ? [] : [{ name, moment }];
  }).sort((a, b) => Date.parse(a.moment) - Date.parse(b.moment));
  return (
    <section className="card" id="timeline-card">
      <h3>
        Timeline <span className="aside">{duration(Math.max(0, whole))}</span>
      </h3>
      <div className="timeline-bar" aria-hidden="true">
        {spans.map((span) => (
          <span
            key={span.name}
            className={span.open ? "open" : undefined}
            data-family={span.family}
            style={{ flexGrow: share(span, whole) }}
          />
        ))}
      </div>
      <ol className="timeline-spans" id="timeline-spans">
        {spans.map((span) => (
          <li key={span.name} data-family={span.family}>
            <span className="name">{span.name}</span>
            <span className="lasted">{duration(span.to - span.from)}</span>
          </li>
        ))}
      </ol>
      <dl className="facts" id="timeline-moments">
        {moments.map(({ name, moment }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              <time dateTime={moment}>{time(moment)}</time>
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function share({ from, to }: Span, whole: number): number {
  return (to - from) / Math.max(1, whole);
}
