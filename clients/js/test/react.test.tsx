// @vitest-environment jsdom
// The hooks over the model of the gateway, in StrictMode.

import { act, cleanup, render, screen } from "@testing-library/react";
import { memo, StrictMode, version, type ReactNode } from "react";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createClient, type Client, type Run } from "../src/index.js";
import {
  RuncastProvider,
  useRun,
  useRuns,
  useRunsList,
  useRunStream,
  useRunWithStreams,
  useTriggeredRun,
  useTriggerTask,
} from "../src/react/index.js";
import { ModelGateway } from "./support/gateway.js";
import { aRun } from "./support/runs.js";

let gateway: ModelGateway;
let client: Client;
const requests: { method: string; path: string; token: string | null; body: unknown }[] = [];
let answers: { status: number; body: unknown }[] = [];

beforeEach(() => {
  vi.useFakeTimers();
  gateway = new ModelGateway();
  requests.length = 0;
  client = createClient({
    baseURL: "http://gateway",
    token: "good",
    transports: ["websocket"],
    WebSocket: gateway.WebSocket,
    fetch: (input, init) => {
      const { pathname, search } = new URL(input as string);
      requests.push({
        method: init?.method ?? "GET",
        path: pathname + search,
        token: new Headers(init?.headers).get("authorization"),
        body: init?.body === undefined ? undefined : JSON.parse(init.body as string),
      });
      const { status, body } = answers.shift() ?? { status: 500, body: {} };
      return Promise.resolve(new Response(JSON.stringify(body), { status }));
    },
  });
});

afterEach(() => {
  cleanup();
  client.close();
  vi.useRealTimers();
});

function show(children: ReactNode) {
  const tree = (
    <StrictMode>
      <RuncastProvider client={client}>{children}</RuncastProvider>
    </StrictMode>
  );
  const { rerender, unmount } = render(tree);
  return {
    unmount,
    again: (next: ReactNode) => {
      rerender(
        <StrictMode>
          <RuncastProvider client={client}>{next}</RuncastProvider>
        </StrictMode>,
      );
    },
  };
}

async function pass(ms = 50): Promise<void> {
  await act(async () => {
    for (let left = ms; left > 0; left -= 50) {
      await vi.advanceTimersByTimeAsync(Math.min(left, 50));
      gateway.deliver();
    }
    await vi.advanceTimersByTimeAsync(1);
  });
}

const subscribes = () => gateway.received.filter(({ type }) => type === "subscribe");
const text = () => document.body.textContent;

describe("useRun", () => {
  function Status(props: { id?: string; enabled?: boolean; onComplete?: () => void }) {
    const { run, status, error } = useRun(props.id, {
      skipColumns: ["payload", "output"],
      ...(props.enabled !== undefined && { enabled: props.enabled }),
      ...(props.onComplete && { onComplete: props.onComplete }),
    });
    return <p>{`${status} ${run?.status ?? "-"} ${error?.code ?? ""}`}</p>;
  }

  test("follows a run to its end, and says once that it is over", async () => {
    gateway.change("run_1");
    const onComplete = vi.fn();
    const { again } = show(<Status id="run_1" onComplete={onComplete} />);
    await pass();
    expect(text()).toBe("live EXECUTING ");
    gateway.change("run_1", { status: "COMPLETED" });
    gateway.say({ type: "end", id: subscribes()[0]?.["id"], end: { reason: "finished" } });
    await pass();
    again(<Status id="run_1" onComplete={onComplete} />);
    expect(text()).toBe("ended COMPLETED ");
    expect(onComplete).toHaveBeenCalledTimes(1);
    expect(subscribes()).toHaveLength(1);
    expect(subscribes()[0]).toMatchObject({ skipColumns: ["output", "payload"] });
  });

  test("shows what it failed of, and says that it is over", async () => {
    const onComplete = vi.fn();
    show(<Status id="run_9" onComplete={onComplete} />);
    await pass();
    expect(text()).toBe("failed - not_found");
    expect(onComplete).toHaveBeenCalledTimes(1);
  });

  test("follows nothing while it is not enabled, or has no id", async () => {
    gateway.change("run_1");
    const { again } = show(<Status id="run_1" enabled={false} />);
    again(<Status />);
    await pass();
    expect(gateway.connections).toBe(0);
    again(<Status id="run_1" />);
    await pass();
    expect(text()).toBe("live EXECUTING ");
    again(<Status id="run_1" enabled={false} />);
    await pass(5000);
    expect(text()).toBe("idle - ");
    expect(gateway.sockets.size).toBe(0);
  });

  test("turns to another run", async () => {
    gateway.change("run_1");
    gateway.change("run_2", { status: "QUEUED" });
    const { again } = show(<Status id="run_1" />);
    await pass();
    again(<Status id="run_2" />);
    await pass();
    expect(text()).toBe("live QUEUED ");
  });

  test("thirty of them share one connection, and equal ones one subscription", async () => {
    for (let n = 0; n < 10; n++) gateway.change(`run_${String(n)}`);
    show(Array.from({ length: 30 }, (_, n) => <Status key={n} id={`run_${String(n % 10)}`} />));
    await pass();
    expect(gateway.connections).toBe(1);
    expect(subscribes()).toHaveLength(10);
    expect(text()).toBe("live EXECUTING ".repeat(30));
  });

  test("renders on a server, where it follows nothing", () => {
    const html = renderToString(
      <RuncastProvider client={client}>
        <Status id="run_1" />
      </RuncastProvider>,
    );
    expect(html).toContain("idle");
    expect(vi.getTimerCount()).toBe(0);
  });
});

test("a change of one run renders only what shows it", async () => {
  const rendered: string[] = [];
  const Row = memo(function Row({ run }: { run: Run }) {
    rendered.push(run.id);
    return <li>{`${run.id} ${run.status}`}</li>;
  });
  function List() {
    const { runs } = useRuns({ tags: ["a"] });
    return runs.map((run) => <Row key={run.id} run={run} />);
  }
  for (let n = 0; n < 5; n++) gateway.change(`run_${String(n)}`);
  show(<List />);
  await pass();
  rendered.length = 0;
  gateway.change("run_3", { status: "COMPLETED" });
  await pass();
  expect(new Set(rendered)).toEqual(new Set(["run_3"]));
  expect(screen.getAllByText(/EXECUTING/)).toHaveLength(4);
});

test("a change of one run renders only the hooks that follow it", async () => {
  const rendered: string[] = [];
  function Status({ id }: { id: string }) {
    const { run } = useRun(id);
    rendered.push(id);
    return <p>{run?.status}</p>;
  }
  function Step() {
    const { streams } = useRunWithStreams("run_2", { keys: ["llm"] });
    rendered.push("streams of run_2");
    return <p>{streams["llm"]?.text}</p>;
  }
  for (let n = 0; n < 3; n++) gateway.change(`run_${String(n)}`, { streams: ["llm"] });
  show([<Status key="0" id="run_0" />, <Status key="1" id="run_1" />, <Step key="2" />]);
  await pass(100);
  rendered.length = 0;
  gateway.change("run_1", { status: "COMPLETED" });
  await pass();
  expect(new Set(rendered)).toEqual(new Set(["run_1"]));
  rendered.length = 0;
  gateway.append("llm", "a");
  await pass();
  expect(new Set(rendered)).toEqual(new Set(["streams of run_2"]));
});

test("useRunStream shows the text as it grows", async () => {
  const onComplete = vi.fn();
  function Text() {
    const stream = useRunStream("run_1", "llm", { maxParts: 1, throttleMs: 100, onComplete });
    return <p>{`${stream.text}|${stream.parts.join()}`}</p>;
  }
  gateway.append("llm", "Hello", " wor");
  show(<Text />);
  await pass(200);
  expect(text()).toBe("Hello wor| wor");
  gateway.append("llm", "ld");
  gateway.end("llm");
  await pass(200);
  expect(text()).toBe("Hello world|ld");
  expect(onComplete).toHaveBeenCalledTimes(1);
});

test("useRunWithStreams follows streams as they appear", async () => {
  function Both() {
    const { run, streams } = useRunWithStreams("run_1");
    const llm = streams["llm"];
    return <p>{`${run?.status ?? "-"} ${llm ? `${llm.status} ${llm.text}` : "none"}`}</p>;
  }
  gateway.change("run_1");
  show(<Both />);
  await pass();
  expect(text()).toBe("EXECUTING none");
  gateway.append("llm", "a");
  gateway.change("run_1", { streams: ["llm"] });
  await pass(100);
  expect(text()).toBe("EXECUTING live a");
  gateway.append("llm", "b");
  await pass(100);
  expect(text()).toBe("EXECUTING live ab");
  expect(gateway.connections).toBe(1);
});

describe("triggering", () => {
  let last: ReturnType<typeof useTriggeredRun> | ReturnType<typeof useTriggerTask>;

  test("useTriggerTask tells how it went", async () => {
    function Button() {
      last = useTriggerTask("hello", { token: "once" });
      return (
        <p>{`${String(last.isTriggering)} ${last.handle?.id ?? "-"} ${last.error?.message ?? ""}`}</p>
      );
    }
    show(<Button />);
    answers = [
      { status: 422, body: { code: "one_time_token_spent", error: "spent" } },
      { status: 200, body: { id: "run_1", isCached: false, publicAccessToken: "t" } },
    ];
    await act(async () => {
      await expect(last.trigger({ n: 1 })).rejects.toMatchObject({ code: "one_time_token_spent" });
    });
    expect(text()).toBe("false - spent");
    await act(() => last.trigger({ n: 2 }, { tags: ["a"] }));
    expect(text()).toBe("false run_1 ");
    expect(requests.at(-1)).toEqual({
      method: "POST",
      path: "/api/v1/tasks/hello/trigger",
      token: "Bearer once",
      body: { payload: { n: 2 }, options: { tags: ["a"] } },
    });
  });

  test("useTriggeredRun follows the run with the token that came with it", async () => {
    gateway.tokens.set("for run_1", undefined);
    gateway.change("run_1");
    function Follow() {
      const triggered = useTriggeredRun("hello");
      last = triggered;
      return <p>{`${triggered.followed.status} ${triggered.followed.run?.status ?? "-"}`}</p>;
    }
    const { unmount } = show(<Follow />);
    answers = [
      { status: 200, body: { id: "run_1", isCached: false, publicAccessToken: "for run_1" } },
    ];
    await act(() => last.trigger({}));
    await pass();
    expect(text()).toBe("live EXECUTING");
    expect(gateway.received[0]).toEqual({ type: "authenticate", token: "for run_1" });
    unmount();
    await pass(5000);
    expect(gateway.sockets.size).toBe(0);
  });
});

describe("useRunsList", () => {
  const page = (id: string, next?: string) => ({
    status: 200,
    body: { data: [aRun({ id })], pagination: next ? { next } : {} },
  });

  function List({ after, refreshMs = 0 }: { after?: string; refreshMs?: number }) {
    const list = useRunsList(
      { size: 1, task: ["resize", "hello"], ...(after && { after }) },
      { refreshMs },
    );
    return (
      <p>{`${list.runs.map(({ id }) => id).join()} ${list.next ?? "-"} ${list.error?.message ?? ""}`}</p>
    );
  }

  test("the runs around a run are read from the run", async () => {
    answers = [{ status: 200, body: { relatedRuns: { parent: { id: "run_0" }, children: [] } } }];
    const related = client.related("run_1");
    await pass();
    expect(await related).toEqual({ parent: { id: "run_0" }, children: [] });
    expect(requests.at(-1)?.path).toBe("/api/v3/runs/run_1");
  });

  test("shows a page, and the next one", async () => {
    answers = [page("run_0"), page("run_1", "c1"), page("run_2")];
    const { again } = show(<List />); // StrictMode asks twice, and drops the first answer
    await pass();
    expect(text()).toBe("run_1 c1 ");
    again(<List after="c1" />);
    await pass();
    expect(text()).toBe("run_2 - ");
    expect(requests.at(-1)?.path).toBe(
      "/api/v1/runs?filter%5BtaskIdentifier%5D=resize%2Chello&page%5Bsize%5D=1&page%5Bafter%5D=c1",
    );
  });

  test("reads again, and keeps what it has when that fails", async () => {
    answers = [
      page("run_0"),
      page("run_1"),
      { status: 503, body: { error: "later" } },
      page("run_2"),
    ];
    show(<List refreshMs={1000} />);
    await pass();
    expect(text()).toBe("run_1 - ");
    await pass(1000);
    expect(text()).toBe("run_1 - later");
    await pass(1000);
    expect(text()).toBe("run_2 - ");
  });
});

test("these tests run with the React that they are meant for", () => {
  expect(version.split(".")[0]).toBe(process.env["REACT_MAJOR"]);
});

test("a hook without a provider says what to do", () => {
  function Alone() {
    useRun("run_1");
    return null;
  }
  expect(() => renderToString(<Alone />)).toThrow("RuncastProvider");
});
