// The runs that a run made: found by asking now and then, each followed live.

import type { Run } from "@runcast/client";
import { useClient, useRun } from "@runcast/client/react";
import { useEffect, useState, type CSSProperties, type ReactElement } from "react";
import { count, duration, progress, statusOf } from "./format.js";
import { Pill } from "./run-parts.js";
import { useNow } from "./use-now.js";
import { hrefOf, type View } from "./view.js";

const ASK_AGAIN_MS = 4000;

export function Children({ run, view }: { run: Run; view: View }): ReactElement | null {
  const ids = useChildren(run);
  const now = useNow(1000, run.finishedAt === undefined);
  if (ids.length === 0) return null;
  const from = Date.parse(run.createdAt);
  const to = run.finishedAt ? Date.parse(run.finishedAt) : now;
  return (
    <section className="card" id="children-card">
      <h3>
        Children <span className="aside">{count(ids.length, "run")}</span>
      </h3>
      <ol className="children" id="children">
        {ids.map((id) => (
          <Child key={id} id={id} view={view} from={from} to={Math.max(to, from + 1)} />
        ))}
      </ol>
    </section>
  );
}

/** Ids of the children, asked for again whenever the run changed its status, and while it lasts. */
function useChildren({ id, status, finishedAt }: Run): readonly string[] {
  const client = useClient();
  const [ids, setIds] = useState<readonly string[]>([]);
  const isOver = finishedAt !== undefined;
  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const again = () => {
      if (!isOver && !abort.signal.aborted) timer = setTimeout(ask, ASK_AGAIN_MS);
    };
    const ask = () => {
      if (document.hidden) {
        again();
        return;
      }
      client.related(id, abort.signal).then(
        ({ children }) => {
          const found = children.map((child) => child.id);
          setIds((before) => (before.join() === found.join() ? before : found));
          again();
        },
        again, // a token may show a run and not what is around it
      );
    };
    ask();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [client, id, status, isOver]);
  return ids;
}

function Child({
  id,
  view,
  from,
  to,
}: {
  id: string;
  view: View;
  from: number;
  to: number;
}): ReactElement {
  const { run } = useRun(id, {
    skipColumns: ["payload", "output"],
    throttleMs: 50,
  });
  const percent = run && progress(run);
  return (
    <li data-run={id}>
      <a className="child" href={hrefOf(view, id)}>
        <span className="task">{run?.taskIdentifier ?? "…"}</span>
        <code className="id">{id}</code>
        <span className="percent">{percent !== undefined && `${Math.round(percent * 100)} %`}</span>
        <Pill status={run?.status} />
        {run && <Bar run={run} from={from} to={to} />}
      </a>
    </li>
  );
}

/** When the child ran, within the time of its parent. */
function Bar({ run, from, to }: { run: Run; from: number; to: number }): ReactElement {
  const begin = Date.parse(run.startedAt ?? run.createdAt);
  const end = run.finishedAt ? Date.parse(run.finishedAt) : to;
  const place = (moment: number) =>
    `${Math.min(Math.max((moment - from) / (to - from), 0), 1) * 100}%`;
  const style: CSSProperties = {
    left: place(begin),
    right: `calc(100% - ${place(end)})`,
  };
  return (
    <span
      className="span-bar"
      data-family={statusOf(run.status)[0]}
      title={duration(Math.max(0, end - begin))}
    >
      <span style={style} />
    </span>
  );
}
