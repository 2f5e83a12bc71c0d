// A client that is closed leaves nothing behind, whatever it was doing.

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createClient, type Client, type ClientOptions } from "../src/index.js";
import { ModelGateway } from "./support/gateway.js";

let gateway: ModelGateway;
let client: Client;

beforeEach(async () => {
  await import("../src/sse-transport.js"); // which fake timers do not wait for
  vi.useFakeTimers();
  gateway = new ModelGateway();
  gateway.change("run_1");
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

function connect(options: Partial<ClientOptions> = {}): void {
  client = createClient({
    baseURL: "http://gateway",
    token: "good",
    transports: ["websocket"],
    WebSocket: gateway.WebSocket,
    ...options,
  });
  client.run("run_1").subscribe(() => undefined);
}

async function pass(ms = 50): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
  gateway.deliver();
  await vi.advanceTimersByTimeAsync(1);
}

/** Close the client; listeners hear of it at once, and then there is nothing any more. */
async function expectNothingAfterClosing(): Promise<void> {
  client.close();
  await vi.advanceTimersByTimeAsync(1);
  expect([vi.getTimerCount(), gateway.sockets.size]).toEqual([0, 0]);
}

const STATES: Record<string, () => Promise<void>> = {
  "while the token function is at work": async () => {
    connect({ token: () => new Promise(() => undefined) });
    await pass();
  },
  "before the connection is open": () => {
    connect();
    return Promise.resolve();
  },
  "before the gateway has said its first word": async () => {
    connect();
    await vi.advanceTimersByTimeAsync(1);
  },
  "while it is live": async () => {
    connect();
    await pass();
    expect(client.run("run_1").getSnapshot().status).toBe("live");
  },
  "under a token that is to be renewed": async () => {
    gateway.tokens.set("good", Date.now() / 1000 + 60);
    connect({ token: () => "good" });
    await pass();
  },
  "while the token is renewed": async () => {
    gateway.tokens.set("good", Date.now() / 1000 + 60);
    let asked = 0;
    connect({ token: () => (asked++ ? new Promise<string>(() => undefined) : "good") });
    for (let n = 0; n < 100; n++) await pass(500);
    expect(asked).toBe(2);
  },
  "while the gateway is asked for a sign of life": async () => {
    connect();
    await pass();
    await vi.advanceTimersByTimeAsync(21_000);
    expect(gateway.received.at(-1)).toEqual({ type: "ping" });
  },
  "while it waits for the next attempt": async () => {
    connect();
    await pass();
    gateway.isUp = false;
    gateway.cut();
    await pass(10);
    expect(client.connection.getSnapshot().status).toBe("waiting");
  },
  "while a subscription waits for its next attempt": async () => {
    connect();
    await pass();
    const { id } = gateway.received.find(({ type }) => type === "subscribe") ?? {};
    gateway.say({ type: "problem", id, problem: { code: "backend_unavailable", message: "m" } });
    await pass(10);
    expect(client.run("run_1").getSnapshot().status).toBe("retrying");
  },
  "after a token was refused": async () => {
    connect({ token: "bad" });
    await pass();
    expect(client.connection.getSnapshot().status).toBe("refused");
  },
  "after a subscription failed": async () => {
    connect();
    client.run("run_9").subscribe(() => undefined);
    await pass();
    expect(client.run("run_1").getSnapshot().status).toBe("live");
  },
  "shortly after nobody follows any more": async () => {
    connect();
    const stop = client.stream("run_1", "llm").subscribe(() => undefined);
    await pass();
    stop();
    await pass(10);
  },
  "while a stream is read, and its reader lags behind": async () => {
    connect();
    let goOn: () => void = () => undefined;
    const paused = new Promise<void>((resolve) => (goOn = resolve));
    const reading = (async () => {
      for await (const _ of client.stream("run_1", "llm", { maxParts: 5 })) await paused;
    })();
    for (let n = 0; n < 20; n++) {
      gateway.append("llm", n);
      await pass();
    }
    client.close();
    goOn(); // and what is not kept any more is not asked for anew
    await pass(10);
    await reading;
  },
  "on an event stream that nothing has come on": async () => {
    connect({ transports: ["sse"], fetch: () => new Promise(() => undefined) });
    await pass();
  },
  "on an event stream, with more of it just read": async () => {
    let body: ReadableStreamDefaultController<Uint8Array> | undefined;
    const stream = new ReadableStream<Uint8Array>({ start: (given) => void (body = given) });
    connect({
      transports: ["sse"],
      fetch: () => Promise.resolve(new Response(stream, { status: 200 })),
    });
    await pass();
    body?.enqueue(new TextEncoder().encode("retry: 1000\n\n"));
    await pass();
    body?.enqueue(new TextEncoder().encode(": more\n\n"));
    client.close();
  },
};

describe.each(Object.keys(STATES))("%s", (state) => {
  test("closing leaves no timer and no connection", async () => {
    await STATES[state]?.();
    await expectNothingAfterClosing();
  });
});

describe.each(["connecting", "open", "waiting"])("by a listener, once it is %s", (status) => {
  test("closing leaves no timer and no connection", async () => {
    gateway.tokens.set("good", Date.now() / 1000 + 60);
    connect({ token: () => "good" });
    await vi.advanceTimersByTimeAsync(0);
    const stop = client.connection.subscribe(() => {
      if (client.connection.getSnapshot().status !== status) return;
      stop();
      client.close();
    });
    await pass();
    gateway.cut();
    await pass(10);
    if (status === "connecting") await pass(2000);
    await vi.advanceTimersByTimeAsync(1);
    expect(client.connection.getSnapshot().status).toBe("idle");
    expect([vi.getTimerCount(), gateway.sockets.size]).toEqual([0, 0]);
  });
});

test("by a listener of what has ended, closing leaves no timer and no connection", async () => {
  connect();
  const run = client.run("run_1");
  await pass();
  run.subscribe(() => {
    if (run.getSnapshot().status !== "live") client.close();
  });
  const { id } = gateway.received.find(({ type }) => type === "subscribe") ?? {};
  gateway.say({ type: "end", id, end: { reason: "finished" } });
  await pass(10);
  expect([vi.getTimerCount(), gateway.sockets.size]).toEqual([0, 0]);
});
