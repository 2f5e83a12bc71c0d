// One page with the main hooks, for what its address asks for: `?url=&token=` and, each if it is
// wanted, `run`, `tag`, `batch`, `task`. `hooks` is the generation that the bundle was made for.
//
// A browser opens six connections to a host: each hook holds one, each stream another, and one has
// to remain for what is asked in between.

import { createRoot } from "react-dom/client";
import * as hooks from "hooks";

const asked = Object.fromEntries(new URLSearchParams(location.search));

function Show({ id, children }) {
  return <p id={id}>{children}</p>;
}

function problem(error) {
  return error ? `error ${error.status ?? error.message}` : "";
}

function Run() {
  const { run, streams, error } = hooks.useRealtimeRunWithStreams(asked.run, {
    experimental_throttleInMs: 30,
    onComplete: () => document.body.setAttribute("data-completed", "yes"),
  });
  return (
    <>
      <Show id="status">{run?.status}</Show>
      <Show id="progress">{run?.metadata?.progress}</Show>
      <Show id="payload">{JSON.stringify(run?.payload)}</Show>
      <Show id="output">{JSON.stringify(run?.output)}</Show>
      <Show id="text">{(streams?.llm ?? []).join("")}</Show>
      <Show id="error">{problem(error)}</Show>
    </>
  );
}

function Stream() {
  const { parts, error } = hooks.useRealtimeStream(asked.run, "llm");
  return <Show id="stream">{parts.join("") + problem(error)}</Show>;
}

function Tagged() {
  const { runs, error } = hooks.useRealtimeRunsWithTag(asked.tag);
  return <Show id="tagged">{runs.map((run) => run.status).join(" ") + problem(error)}</Show>;
}

function Batch() {
  const { runs, error } = hooks.useRealtimeBatch(asked.batch);
  return <Show id="batch">{runs.map((run) => run.taskIdentifier).join(" ") + problem(error)}</Show>;
}

function Trigger() {
  const { submit, run, handle, error } = hooks.useRealtimeTaskTrigger(asked.task);
  return (
    <>
      <button onClick={() => submit({ text: "größe" })}>Trigger</button>
      <Show id="triggered">{handle?.id}</Show>
      <Show id="followed">{run && `${run.status} ${run.payload.text}`}</Show>
      <Show id="refused">{problem(error)}</Show>
    </>
  );
}

createRoot(document.body.appendChild(document.createElement("main"))).render(
  <hooks.TriggerAuthContext.Provider value={{ accessToken: asked.token, baseURL: asked.url }}>
    {asked.run && <Run />}
    {asked.run && hooks.useRealtimeStream && <Stream />}
    {asked.tag && <Tagged />}
    {asked.batch && <Batch />}
    {asked.task && <Trigger />}
  </hooks.TriggerAuthContext.Provider>,
);
