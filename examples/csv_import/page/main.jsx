import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { useRealtimeBatch, useRealtimeRun } from "@trigger.dev/react-hooks";

function App() {
  // Kept for as long as the tab lives, so that a reload goes on with it.
  const [started, setStarted] = useState(() => JSON.parse(sessionStorage.started ?? "null"));
  useEffect(() => {
    sessionStorage.started = JSON.stringify(started);
  }, [started]);

  return (
    <main>
      <h1>CSV import</h1>
      {started ? (
        <Import key={started.run} {...started} onLeave={() => setStarted(null)} />
      ) : (
        <Chooser onStart={setStarted} />
      )}
    </main>
  );
}

function Chooser({ onStart }) {
  const [state, setState] = useState({});
  async function upload(name, content) {
    setState({ busy: true });
    try {
      const made = await ask("POST", "/api/imports", await content());
      onStart({ name, ...made });
    } catch (error) {
      setState({ problem: error.message });
    }
  }
  const uploadFile = (file) => file && upload(file.name, () => file.text());
  const uploadSample = () =>
    upload("sample.csv", async () => (await fetch("/sample.csv")).text());
  const drop = (event) => {
    event.preventDefault();
    uploadFile(event.dataTransfer.files[0]);
  };

  return (
    <section className="chooser" onDragOver={(event) => event.preventDefault()} onDrop={drop}>
      <p>
        A file with the columns <code>name</code>, <code>email</code> and <code>amount</code>.
        <br />
        Drop it here, or
      </p>
      <div className="actions">
        <label className="button">
          Choose a file
          <input
            type="file"
            accept=".csv,text/csv"
            disabled={state.busy}
            onChange={(event) => uploadFile(event.target.files[0])}
          />
        </label>
        <button className="quiet" disabled={state.busy} onClick={uploadSample}>
          Take the sample
        </button>
      </div>
      {state.problem && <Problem text={state.problem} />}
    </section>
  );
}

/** An import as it goes: the parent's run tells how far it is, the batch shows the chunks. */
function Import({ name, run: id, batch, token, baseURL, onLeave }) {
  const access = { accessToken: token, baseURL };
  const { run, error: runError } = useRealtimeRun(id, access);
  const { runs, error: batchError, stop } = useRealtimeBatch(batch, access);
  const [problem, setProblem] = useState("");
  const chunks = runs.toSorted((one, other) => one.metadata.first - other.metadata.first);
  const isOver = Boolean(run?.finishedAt);
  // The hook shows one run after the other: the first are there before the last.
  const shown = chunks.reduce((sum, { metadata }) => sum + metadata.rows, 0);
  const allOver =
    isOver && shown === run.metadata.rows && chunks.every(({ finishedAt }) => finishedAt);
  useEffect(() => {
    if (allOver) stop(); // a batch could still grow; ours does not
  }, [allOver]);

  const cancel = () =>
    ask("DELETE", `/api/imports/${id}`).catch((error) => setProblem(error.message));
  const { rows = 0, imported = 0, rejected = 0 } = run?.metadata ?? {};
  const trouble = problem || runError?.message || batchError?.message;

  return (
    <section aria-busy={!isOver}>
      <div className="title">
        <h2>{name}</h2>
        {isOver ? (
          <button className="quiet" onClick={onLeave}>
            Import another
          </button>
        ) : (
          <button className="quiet" onClick={cancel}>
            Cancel
          </button>
        )}
      </div>
      <progress aria-label="Progress" max={rows || 1} value={imported + rejected} />
      <p className="counts">
        <output>{rows ? Math.floor((100 * (imported + rejected)) / rows) : 0} %</output>
        <span>
          {imported + rejected} of {rows} rows
        </span>
      </p>
      {trouble && <Problem text={trouble} />}
      <p className="summary" role="status" data-status={run?.status}>
        {isOver ? summaryOf(run) : "Importing …"}
      </p>
      <ol className="chunks" aria-label="Chunks">
        {chunks.map((chunk) => (
          <Chunk key={chunk.id} chunk={chunk} />
        ))}
      </ol>
      <Rejected chunks={chunks.filter(({ status }) => status === "FAILED")} />
    </section>
  );
}

function summaryOf({ status, output, metadata, error }) {
  if (status === "CANCELED") return `Canceled; ${metadata.imported} rows were imported before.`;
  if (status !== "COMPLETED") return error?.message ?? `The import is ${status.toLowerCase()}.`;
  const { imported, rejected } = output;
  if (!rejected.length) return `All ${imported} rows were imported.`;
  return `${imported} rows were imported, ${rejected.length} rejected.`;
}

const WORDS = { COMPLETED: "imported", FAILED: "failed", CANCELED: "canceled", QUEUED: "waits" };

function Chunk({ chunk }) {
  const { first, rows, done } = chunk.metadata;
  return (
    <li data-status={chunk.status} style={{ "--done": done / rows }}>
      <span className="rows">
        {first} – {first + rows - 1}
      </span>
      <span className="word">{WORDS[chunk.status] ?? `${done} of ${rows}`}</span>
    </li>
  );
}

/** Why chunks failed: what was wrong with which row. */
function Rejected({ chunks }) {
  if (!chunks.length) return null;
  return (
    <section className="rejected" aria-label="Rejected rows">
      <h3>Rejected</h3>
      {chunks.map(({ id, error }) => (
        <p key={id}>{error.message}</p>
      ))}
    </section>
  );
}

function Problem({ text }) {
  return (
    <p className="problem" role="alert">
      {text}
    </p>
  );
}

async function ask(method, path, body) {
  const response = await fetch(path, { method, body });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The backend says ${response.status}.`);
  return answer;
}

createRoot(document.getElementById("root")).render(<App />);
