// Event streams in place of a WebSocket: when, until when, and what goes wrong with them.

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createClient, type Client, type ClientOptions } from "../src/index.js";
import { ModelGateway } from "./support/gateway.js";
import { aRun } from "./support/runs.js";

/** One request for an event stream, answered by the test. */
interface Asked {
  readonly url: URL;
  readonly token: string | null;
  readonly signal: AbortSignal;
  answer(status: number, body: string): void;
  /** Open the stream, and send bytes on it. */
  send(text: string): void;
  breakOff(): void;
}

let gateway: ModelGateway;
let client: Client;
let asked: Asked[];

beforeEach(() => {
  vi.useFakeTimers();
  gateway = new ModelGateway();
  asked = [];
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const fetchStream: typeof fetch = (input, init) =>
  new Promise((resolve, reject) => {
    const signal = init?.signal as AbortSignal;
    let body: ReadableStreamDefaultController<Uint8Array> | undefined;
    signal.addEventListener("abort", () => {
      reject(new DOMException("aborted", "AbortError"));
      body?.error(new DOMException("aborted", "AbortError"));
    });
    asked.push({
      url: new URL(input as string),
      token: new Headers(init?.headers).get("authorization"),
      signal,
      answer: (status, text) => {
        resolve(new Response(status === 204 ? null : text, { status }));
      },
      send: (text) => {
        if (!body) {
          const stream = new ReadableStream<Uint8Array>({ start: (given) => void (body = given) });
          resolve(new Response(stream, { status: 200 }));
        }
        body?.enqueue(new TextEncoder().encode(text));
      },
      breakOff: () => body?.error(new TypeError("terminated")),
    });
  });

function connect(options: Partial<ClientOptions> = {}): Client {
  client = createClient({
    baseURL: "http://gateway/",
    token: "good",
    WebSocket: gateway.WebSocket,
    fetch: fetchStream,
    ...options,
  });
  return client;
}

async function pass(ms = 10): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
  gateway.deliver();
  await vi.advanceTimersByTimeAsync(1);
}

const event = (type: string, data: object, id?: string) =>
  `${id === undefined ? "" : `id: ${id}\n`}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
const follow = (feed: { subscribe: (listener: () => void) => () => void }) =>
  feed.subscribe(() => undefined);

/** The one request that is open. */
function latest(): Asked {
  const last = asked.at(-1);
  if (!last) throw new Error("nothing was asked for");
  return last;
}

describe("the choice", () => {
  test("falls back to event streams, and comes back to the WebSocket after a while", async () => {
    connect();
    gateway.isUp = false;
    gateway.change("run_1");
    const feed = client.run("run_1");
    follow(feed);
    await pass(600);
    await vi.waitFor(() => {
      expect(asked).toHaveLength(1);
    });
    latest().send(`retry: 1000\n\n${event("run", aRun())}${event("up-to-date", {}, "1")}`);
    await pass();
    expect(feed.getSnapshot()).toMatchObject({ status: "live", run: { id: "run_1" } });
    expect(client.connection.getSnapshot()).toMatchObject({ transport: "sse" });
    gateway.isUp = true;
    for (let second = 0; second < 61; second++) {
      if (!latest().signal.aborted) latest().send(": keep-alive\nid: 1\n\n");
      await pass(1000);
    }
    expect(latest().signal.aborted).toBe(true);
    expect(client.connection.getSnapshot()).toMatchObject({ transport: "websocket" });
    expect(gateway.received.at(-1)).toMatchObject({ type: "subscribe", cursor: "1" });
    expect(feed.getSnapshot()).toMatchObject({ status: "live", resets: 0 });
  });

  test("notices a proxy that holds answers back, and says so", async () => {
    connect({ transports: ["sse", "websocket"] });
    gateway.change("run_1");
    const feed = client.run("run_1");
    follow(feed);
    await pass(9900);
    await vi.waitFor(() => {
      expect(asked).toHaveLength(1);
    });
    expect(latest().signal.aborted).toBe(false);
    await pass(200);
    expect(latest().signal.aborted).toBe(true);
    expect(feed.getSnapshot().problem).toMatchObject({ code: "no_answer" });
    await pass(600);
    await pass();
    expect(client.connection.getSnapshot()).toMatchObject({ transport: "websocket" });
  });

  test("without a WebSocket there is none to try", async () => {
    vi.stubGlobal("WebSocket", undefined);
    client = createClient({ baseURL: "http://gateway", token: "good", fetch: fetchStream });
    follow(client.runs({ tags: ["a", "b"] }));
    await vi.waitFor(() => {
      expect(asked).toHaveLength(1);
    });
    expect(latest().url.href).toBe("http://gateway/realtime/v1/runs?tags=a%2Cb");
    expect(latest().token).toBe("Bearer good");
  });

  test("where `fetch` gives answers whole, as in React Native, there are no event streams", async () => {
    vi.stubGlobal("fetch", fetchStream);
    vi.stubGlobal("Response", vi.fn());
    const { WebSocket } = gateway;
    client = createClient({ baseURL: "http://gateway", token: "good", WebSocket });
    gateway.isUp = false;
    const feed = client.run("run_1");
    follow(feed);
    for (let second = 0; second < 10; second++) await pass(1000);
    expect(asked).toEqual([]);
    gateway.isUp = true;
    gateway.change("run_1");
    for (let second = 0; second < 40; second++) await pass(1000);
    expect(feed.getSnapshot()).toMatchObject({ status: "live", run: { id: "run_1" } });
  });
});

describe("event streams", () => {
  async function open(options: Partial<ClientOptions> = {}): Promise<void> {
    connect({ transports: ["sse"], ...options });
    follow(client.run("run_1"));
    await vi.waitFor(() => {
      expect(asked).toHaveLength(1);
    });
    latest().send(`retry: 1000\n\n${event("run", aRun())}${event("up-to-date", {}, "c1")}`);
    await pass();
  }

  test("that break off are asked for again from the last cursor", async () => {
    await open();
    latest().send(": keep-alive\nid: c2\n\n");
    await pass();
    latest().breakOff();
    await pass(600);
    expect(asked).toHaveLength(2);
    expect(latest().url.searchParams.get("cursor")).toBe("c2");
  });

  test("that fall silent are asked for again", async () => {
    await open();
    await pass(31_000);
    expect(asked[0]?.signal.aborted).toBe(true);
    expect(asked).toHaveLength(2);
  });

  test("one that breaks off takes no other one with it", async () => {
    await open();
    const stream = client.stream("run_1", "llm");
    follow(stream);
    await pass();
    latest().send(`id: 17-0\ndata: "a"\n\n`);
    await pass();
    latest().breakOff();
    await pass(600);
    expect(asked).toHaveLength(3);
    expect(asked[0]?.signal.aborted).toBe(false);
    expect(latest().url.href).toBe("http://gateway/realtime/v1/streams/run_1/llm?from=1");
    expect(stream.getSnapshot().parts).toEqual(["a"]);
  });

  test("whose token expired go on with a fresh one", async () => {
    const tokens = ["one", "two"];
    await open({ token: () => tokens.shift() ?? "none" });
    latest().send(event("expired", { code: "expired_token", message: "m" }));
    await pass(50);
    await pass(50);
    expect(latest().token).toBe("Bearer two");
    expect(latest().url.searchParams.get("cursor")).toBe("c1");
  });

  test("that are refused say why", async () => {
    await open();
    const other = client.run("run_2");
    follow(other);
    await pass();
    latest().answer(403, '{"code":"insufficient_scope","error":"no"}');
    await pass();
    expect(other.getSnapshot()).toMatchObject({
      status: "failed",
      error: { code: "insufficient_scope", message: "no" },
    });
    expect(client.run("run_1").getSnapshot().status).toBe("live");
  });

  test("that a `fetch` cannot give are missed by name", async () => {
    connect({ transports: ["sse"], fetch: () => Promise.resolve(new Response(null)) });
    const feed = client.run("run_1");
    follow(feed);
    await pass();
    expect(feed.getSnapshot()).toMatchObject({ status: "connecting" });
    expect(feed.getSnapshot().problem?.message).toContain("`fetch`");
  });

  test("of a run that is finished, and known to be, end", async () => {
    await open();
    latest().breakOff();
    await pass(600);
    latest().answer(204, "");
    await pass();
    expect(asked).toHaveLength(2);
    expect(client.run("run_1").getSnapshot().status).toBe("idle"); // over: who comes now asks anew
  });

  test("are ended when nobody follows any more", async () => {
    connect({ transports: ["sse"] });
    const stop = follow(client.run("run_1"));
    await vi.waitFor(() => {
      expect(asked).toHaveLength(1);
    });
    latest().send("retry: 1000\n\n");
    await pass();
    stop();
    await pass(3000);
    expect(latest().signal.aborted).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("a newer token", () => {
  test("takes the place of the older one on the open streams", async () => {
    let given = 0;
    connect({ transports: ["sse"], token: () => `token ${String(++given)}` });
    const feed = client.run("run_1");
    follow(feed);
    await pass();
    const stream = latest();
    const inSeconds = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;
    const hello = event("connection", { id: "abc-1", expiresAt: inSeconds(100) });
    stream.send(`${hello}${event("run", aRun())}${event("up-to-date", {}, "1")}`);
    for (const number of [2, 3]) {
      for (let second = 0; second < 100 && given < number; second++) {
        await pass(1000);
        stream.send(": keep-alive\n\n");
      }
      const renewal = latest();
      expect(renewal.url.pathname).toBe("/api/v1/connections/abc-1/token");
      expect(renewal.token).toBe(`Bearer token ${String(number)}`);
      renewal.answer(200, JSON.stringify({ expiresAt: inSeconds(100) }));
      await pass();
    }
    expect(asked).toHaveLength(3);
    expect(stream.signal.aborted).toBe(false);
    expect(feed.getSnapshot()).toMatchObject({ status: "live" });
    expect(client.connection.getSnapshot()).toMatchObject({ status: "open", reconnects: 0 });
  });

  test("that the gateway does not take leaves the older one to its end", async () => {
    let given = 0;
    connect({ transports: ["sse"], token: () => `token ${String(++given)}` });
    follow(client.run("run_1"));
    await pass();
    const stream = latest();
    const expiresAt = Math.floor(Date.now() / 1000) + 20;
    stream.send(event("connection", { id: "abc-1", expiresAt }));
    for (let second = 0; second < 20 && given < 2; second++) await pass(1000);
    latest().answer(404, JSON.stringify({ error: "gone", code: "not_found" }));
    await pass();
    expect(stream.signal.aborted).toBe(false);
    stream.send(event("expired", { code: "expired_token" }));
    await pass();
    expect(latest().url.pathname).toBe("/realtime/v1/runs/run_1");
    expect(latest().token).toBe("Bearer token 3");
  });
});
