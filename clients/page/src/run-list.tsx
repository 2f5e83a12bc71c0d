// The list: filters, counts of each status, and a row for each run.

import type { Run, RunsSnapshot } from "@runcast/client";
import { memo, useMemo, useState, type ReactElement } from "react";
import { age, progress, STATUS_NAMES, statusOf } from "./format.js";
import { Pill, ProgressBar, Tags } from "./run-parts.js";
import { Teach, triggerCommand } from "./teach.js";
import { walk } from "./use-keys.js";
import { useNow } from "./use-now.js";
import { hrefOf, MAX_RUNS, namesIn, show, type View } from "./view.js";

export function RunList({
  view,
  isListed,
  snapshot,
}: {
  view: View;
  isListed: boolean;
  snapshot: RunsSnapshot;
}): ReactElement {
  const { runs } = snapshot;
  const [sought, setSought] = useState("");
  const chosen = new Set(namesIn(view.status));
  const found = sought === "" ? runs : runs.filter((run) => isSought(run, sought.toLowerCase()));
  const shown = chosen.size === 0 ? found : found.filter(({ status }) => chosen.has(status));
  const now = useNow(1000);
  return (
    <section className="runs" aria-labelledby="runs-title">
      <div className="runs-head">
        <h1 id="runs-title">{view.batch ? `Runs of ${view.batch}` : "Runs"}</h1>
        <span className="count" id="count">
          {runs.length > 0 && (runs.length === MAX_RUNS ? `newest ${MAX_RUNS}` : runs.length)}
        </span>
      </div>
      <Find value={sought} onChange={setSought} view={view} />
      <Filter key={`${view.tags} ${view.task} ${view.since}`} view={view} />
      <Statuses view={view} runs={found} chosen={chosen} />
      <ol
        className="rows"
        id="rows"
        onKeyDown={(event) => {
          const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
          if (step === undefined) return;
          event.preventDefault();
          walk(step);
        }}
      >
        {shown.map((run) => (
          <Row
            key={run.id}
            run={run}
            href={hrefOf(view, run.id)}
            age={age((now - Date.parse(run.createdAt)) / 1000)}
            isOpen={run.id === view.run}
          />
        ))}
      </ol>
      <Note
        view={view}
        isListed={isListed}
        snapshot={snapshot}
        isFiltered={shown.length < runs.length}
        count={shown.length}
      />
    </section>
  );
}

function isSought(run: Run, sought: string): boolean {
  return [run.id, run.taskIdentifier, ...run.tags].some((text) =>
    text.toLowerCase().includes(sought),
  );
}

function Find({
  value,
  onChange,
  view,
}: {
  value: string;
  onChange: (value: string) => void;
  view: View;
}): ReactElement {
  return (
    <form
      className="find"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        const id = value.trim();
        if (/^run_\w+$/.test(id)) show({ ...view, run: id });
        else document.querySelector<HTMLElement>("#rows .row")?.focus();
      }}
    >
      <input
        id="find"
        type="search"
        aria-label="Find in the list, or open a run by its id"
        placeholder="Find in the list, or open by run id"
        autoComplete="off"
        spellCheck={false}
        value={value}
        onChange={(event) => {
          onChange(event.target.value);
        }}
      />
      <kbd aria-hidden="true">/</kbd>
    </form>
  );
}

/** What the gateway filters by. Its fields begin with what the address says. */
function Filter({ view }: { view: View }): ReactElement {
  return (
    <form
      className="filter"
      id="filter"
      aria-label="Filter runs"
      onSubmit={(event) => {
        event.preventDefault();
        const data = new FormData(event.currentTarget);
        const text = (name: string) => (data.get(name) as string).trim();
        const since = text("since");
        show({
          ...view,
          batch: "",
          tags: namesIn(text("tags")).join(),
          task: text("task"),
          since: since === "1d" ? "" : since,
        });
      }}
    >
      <label>
        Tags
        <input
          name="tags"
          autoComplete="off"
          spellCheck={false}
          placeholder="any"
          defaultValue={view.tags}
        />
      </label>
      <label>
        Task
        <input
          name="task"
          autoComplete="off"
          spellCheck={false}
          placeholder="any"
          defaultValue={view.task}
        />
      </label>
      <label>
        Created
        <select
          name="since"
          defaultValue={view.since || "1d"}
          onChange={(event) => {
            event.currentTarget.form?.requestSubmit();
          }}
        >
          <option value="1h">last hour</option>
          <option value="1d">last day</option>
          <option value="7d">last week</option>
          <option value="all">at any time</option>
        </select>
      </label>
      <button type="submit" className="quiet">
        Filter
      </button>
    </form>
  );
}

function Statuses({
  view,
  runs,
  chosen,
}: {
  view: View;
  runs: readonly Run[];
  chosen: ReadonlySet<string>;
}): ReactElement {
  const counts = useMemo(() => {
    const found = new Map<string, number>();
    for (const { status } of runs) found.set(status, (found.get(status) ?? 0) + 1);
    return found;
  }, [runs]);
  const rank = (name: string) => STATUS_NAMES.indexOf(name) + 1 || STATUS_NAMES.length + 1;
  const names = [...new Set([...counts.keys(), ...chosen])].sort((a, b) => rank(a) - rank(b));
  const toggle = (name: string) => {
    const others = [...chosen].filter((each) => each !== name);
    const status = (chosen.has(name) ? others : [...chosen, name]).join();
    show({ ...view, status });
  };
  return (
    <div
      className={`statuses${chosen.size > 0 ? " choosing" : ""}`}
      id="statuses"
      role="group"
      aria-label="Show only runs with these statuses"
    >
      {names.map((name) => {
        const [family, words] = statusOf(name);
        return (
          <button
            key={name}
            type="button"
            className="chip pill"
            data-status={name}
            data-family={family}
            aria-pressed={chosen.has(name)}
            onClick={() => {
              toggle(name);
            }}
          >
            {`${words} ${counts.get(name) ?? 0}`}
          </button>
        );
      })}
    </div>
  );
}

const Row = memo(function Row({
  run,
  href,
  age,
  isOpen,
}: {
  run: Run;
  href: string;
  age: string;
  isOpen: boolean;
}): ReactElement {
  return (
    <li data-run={run.id}>
      <a className="row" href={href} aria-current={isOpen || undefined}>
        <span className="task">{run.taskIdentifier}</span>
        <Pill status={run.status} />
        <span className="below">
          <code className="id">{run.id}</code>
          <Tags tags={run.tags} as="span" />
          <span className="age">{age}</span>
        </span>
        <ProgressBar value={progress(run)} status={run.status} />
      </a>
    </li>
  );
});

function Note({
  view,
  isListed,
  snapshot: { status, error, runs },
  isFiltered,
  count,
}: {
  view: View;
  isListed: boolean;
  snapshot: RunsSnapshot;
  isFiltered: boolean;
  count: number;
}): ReactElement | null {
  if (count > 0) return null;
  let words = "";
  if (!isListed)
    words = "This token does not open every run. Filter by a tag or a task that it names.";
  else if (error) words = error.message;
  else if (isFiltered && runs.length > 0)
    words = "None of these runs has such a status or name now.";
  else if (status === "live") {
    return (
      <div className="empty" id="list-note">
        <Teach command={triggerCommand(view.task, namesIn(view.tags))}>
          No runs yet. They appear here by themselves; this makes one:
        </Teach>
      </div>
    );
  }
  return (
    <p className="empty" id="list-note">
      {words}
    </p>
  );
}
