// The whole client against a model of the gateway, under fake timers.

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { createClient, type Client, type ClientOptions, type Store } from "../src/index.js";
import { ModelGateway } from "./support/gateway.js";

let gateway: ModelGateway;
let client: Client;

beforeEach(() => {
  vi.useFakeTimers();
  gateway = new ModelGateway();
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

function connect(options: Partial<ClientOptions> = {}): Client {
  client = createClient({
    baseURL: "http://gateway",
    token: "good",
    transports: ["websocket"],
    WebSocket: gateway.WebSocket,
    ...options,
  });
  return client;
}

/** Let time pass, and everything through that is sent meanwhile. */
async function pass(ms = 50): Promise<void> {
  for (let left = ms; left > 0; left -= 50) {
    await vi.advanceTimersByTimeAsync(Math.min(left, 50));
    gateway.deliver();
  }
  await vi.advanceTimersByTimeAsync(1);
}

function follow<Snapshot>(store: Store<Snapshot>): { seen: Snapshot[]; stop: () => void } {
  const seen: Snapshot[] = [];
  const stop = store.subscribe(() => seen.push(store.getSnapshot()));
  return { seen, stop };
}

const subscribes = () => gateway.received.filter(({ type }) => type === "subscribe");

describe("sharing", () => {
  test("the same thing followed by many is one subscription, all things are one connection", async () => {
    connect();
    gateway.change("run_1");
    for (let i = 0; i < 10; i++) follow(client.run("run_1"));
    follow(client.runs({ tags: ["b", "a"] }));
    follow(client.runs({ tags: ["a", "b"] }));
    follow(client.stream("run_1", "llm"));
    await pass();
    expect(subscribes()).toHaveLength(3);
    expect(gateway.connections).toBe(1);
  });

  test("who comes later sees at once what is known", async () => {
    connect();
    gateway.change("run_1");
    follow(client.run("run_1"));
    await pass();
    expect(client.run("run_1").getSnapshot()).toMatchObject({
      status: "live",
      run: { id: "run_1" },
    });
  });

  test("leaving and coming back at once, as StrictMode does, asks once", async () => {
    connect();
    gateway.change("run_1");
    const feed = client.run("run_1");
    follow(feed).stop();
    follow(feed);
    await pass(3000);
    expect(subscribes()).toHaveLength(1);
    expect(gateway.received.filter(({ type }) => type === "unsubscribe")).toEqual([]);
  });

  test("when nobody follows any more, the subscription and then the connection end", async () => {
    connect();
    gateway.change("run_1");
    const { stop } = follow(client.run("run_1"));
    await pass();
    stop();
    stop();
    await pass(5000);
    expect(gateway.received.at(-1)).toMatchObject({ type: "unsubscribe" });
    expect(gateway.sockets.size).toBe(0);
    expect(client.connection.getSnapshot()).toMatchObject({ status: "idle" });
  });

  test("a listener that throws does not keep the others from hearing", async () => {
    connect();
    gateway.change("run_1");
    const mistakes: unknown[] = [];
    const report = (error: unknown) => mistakes.push(error);
    process.prependListener("uncaughtException", report);
    const others = process.listeners("uncaughtException").slice(1);
    others.forEach((other) => process.off("uncaughtException", other));
    client.run("run_1").subscribe(() => {
      throw new Error("mine");
    });
    const { seen } = follow(client.run("run_1"));
    await pass();
    await vi.waitFor(() => {
      expect(mistakes.length).toBeGreaterThan(0);
    });
    process.off("uncaughtException", report);
    others.forEach((other) => process.on("uncaughtException", other));
    expect(seen.at(-1)).toMatchObject({ status: "live" });
  });
});

describe("resuming", () => {
  test("after a loss it goes on from the last cursor, and nothing is gone from view meanwhile", async () => {
    connect();
    gateway.change("run_1");
    const { seen } = follow(client.runs({}));
    await pass();
    gateway.cut();
    gateway.change("run_2");
    await pass(1000);
    expect(subscribes().map(({ cursor }) => cursor)).toEqual([undefined, "1"]);
    expect(seen.at(-1)?.runs).toHaveLength(2);
    expect(seen.slice(2).every(({ runs }) => runs.length > 0)).toBe(true);
    expect(seen.at(-1)).toMatchObject({ resets: 0, status: "live" });
    expect(seen.at(-1)?.problem).toBeUndefined();
  });

  test("a quiet feed resumes from the cursor of the last keep-alive", async () => {
    connect();
    gateway.change("run_1");
    follow(client.run("run_1"));
    await pass();
    gateway.forgetHistory();
    gateway.keepAlive();
    await pass();
    gateway.cut();
    await pass(1000);
    expect(subscribes().at(-1)).toMatchObject({ cursor: "2" });
  });

  test("a reset is told, and what is known is read again", async () => {
    connect();
    gateway.change("run_1");
    gateway.change("run_2");
    const { seen } = follow(client.runs({}));
    await pass();
    gateway.cut();
    gateway.delete("run_1");
    gateway.forgetHistory();
    await pass(1000);
    expect(seen.at(-1)).toMatchObject({ resets: 1, lastReset: { reason: "too_old" } });
    expect(seen.at(-1)?.runs.map(({ id }) => id)).toEqual(["run_2"]);
  });

  test("a loss amid the first snapshot leaves no run behind that is gone since", async () => {
    connect();
    gateway.change("run_1");
    gateway.change("run_2");
    const feed = client.runs({});
    follow(feed);
    await vi.advanceTimersByTimeAsync(1);
    gateway.deliver(2); // the greeting and one run
    gateway.cut();
    gateway.delete("run_1");
    await pass(1000);
    expect(feed.getSnapshot().runs.map(({ id }) => id)).toEqual(["run_2"]);
  });

  test("a silent gateway is asked for a sign of life, and left when none comes", async () => {
    connect();
    gateway.change("run_1");
    follow(client.run("run_1"));
    await pass();
    await vi.advanceTimersByTimeAsync(20_000);
    expect(gateway.received.at(-1)).toEqual({ type: "ping" });
    await vi.advanceTimersByTimeAsync(11_000);
    expect(gateway.connections).toBe(2);
  });

  test("a gateway that answers is not left", async () => {
    connect();
    gateway.change("run_1");
    follow(client.run("run_1"));
    await pass(120_000);
    expect(gateway.connections).toBe(1);
  });

  test("attempts come ever more rarely while no gateway is there", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    connect();
    gateway.isUp = false;
    follow(client.runs({}));
    await pass(100_000);
    expect(gateway.connections).toBe(9); // after 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5 s
    gateway.isUp = true;
    await pass(30_000);
    expect(client.runs({}).getSnapshot().status).toBe("live");
    vi.restoreAllMocks();
  });

  test("a gateway that goes away says when to come back", async () => {
    connect();
    follow(client.runs({}));
    await pass();
    gateway.say({
      type: "reconnect",
      reconnect: { code: "draining", message: "m", delayMs: 2000 },
    });
    gateway.deliver();
    gateway.cut(4054, "draining");
    await pass(1900);
    expect(gateway.connections).toBe(1);
    await pass(200);
    expect(gateway.connections).toBe(2);
  });
});

describe("the token", () => {
  test("is replaced in time under the open connection, and nothing else changes", async () => {
    const start = Date.now() / 1000;
    const given: string[] = [];
    connect({
      token: () => {
        const token = `token ${String(given.length)}`;
        gateway.tokens.set(token, start + 100 * (given.length + 1));
        given.push(token);
        return token;
      },
    });
    gateway.change("run_1");
    const { seen } = follow(client.run("run_1"));
    await pass(74_000);
    expect(given).toHaveLength(1);
    await pass(2000);
    expect(given).toHaveLength(2);
    expect(gateway.received.at(-1)).toEqual({ type: "authenticate", token: "token 1" });
    await pass(200_000);
    expect(gateway.connections).toBe(1);
    expect(subscribes()).toHaveLength(1);
    expect(new Set(seen.map(({ status }) => status))).toEqual(new Set(["connecting", "live"]));
  });

  test("that expired is replaced over the next connection, from the cursor", async () => {
    let token = "good";
    connect({ token: () => token });
    gateway.change("run_1");
    follow(client.run("run_1"));
    await pass();
    token = "better";
    gateway.tokens.set(token, undefined);
    gateway.say({ type: "expired", expired: {} });
    gateway.deliver();
    gateway.cut(4001, "expired_token");
    await pass(100);
    expect(gateway.received.slice(-2)).toMatchObject([
      { type: "authenticate", token: "better" },
      { type: "subscribe", cursor: "1" },
    ]);
  });

  test("that expired and is a fixed text is the end, with its reason", async () => {
    connect();
    gateway.change("run_1");
    const feed = client.run("run_1");
    follow(feed);
    await pass();
    gateway.cut(4001, "expired_token");
    await pass();
    expect(feed.getSnapshot()).toMatchObject({
      status: "failed",
      error: { code: "expired_token" },
    });
    expect(client.connection.getSnapshot()).toMatchObject({ status: "refused" });
  });

  test("that was just given and is refused is the end; the next request tries again", async () => {
    connect({ token: "wrong" });
    gateway.change("run_1");
    const feed = client.run("run_1");
    const { stop } = follow(feed);
    await pass();
    expect(feed.getSnapshot()).toMatchObject({
      status: "failed",
      error: { code: "invalid_token" },
    });
    gateway.tokens.set("wrong", undefined);
    stop();
    follow(feed);
    await pass();
    expect(feed.getSnapshot()).toMatchObject({ status: "live" });
  });

  test("that was given long ago and is refused is asked for again", async () => {
    const tokens = ["good", "better"];
    connect({ token: () => tokens.shift() ?? "none" });
    follow(client.runs({}));
    await pass();
    gateway.tokens.clear();
    gateway.tokens.set("better", undefined);
    gateway.cut();
    await pass(2000);
    expect(client.runs({}).getSnapshot().status).toBe("live");
    expect(tokens).toEqual([]);
  });

  test("function that fails is asked again, and the problem is there to see", async () => {
    let works = false;
    connect({ token: () => (works ? "good" : Promise.reject(new Error("503"))) });
    const feed = client.runs({});
    follow(feed);
    await pass(3000);
    expect(feed.getSnapshot()).toMatchObject({ problem: { code: "token_unavailable" } });
    works = true;
    await pass(10_000);
    expect(feed.getSnapshot()).toMatchObject({ status: "live" });
  });

  test("of a machine whose clock is wrong is not asked for without end", async () => {
    const ask = vi.fn(() => "good");
    gateway.tokens.set("good", Date.now() / 1000 - 3600);
    connect({ token: ask });
    follow(client.runs({}));
    await pass(60_000);
    expect(ask).toHaveBeenCalledTimes(1);
  });
});

describe("problems", () => {
  test("of one subscription are not those of others", async () => {
    connect();
    gateway.change("run_1");
    const missing = client.run("run_9");
    follow(missing);
    follow(client.run("run_1"));
    await pass();
    expect(missing.getSnapshot()).toMatchObject({ status: "failed", error: { code: "not_found" } });
    expect(client.run("run_1").getSnapshot()).toMatchObject({ status: "live" });
  });

  test("an iteration throws what it failed of", async () => {
    connect();
    const next = client.run("run_9")[Symbol.asyncIterator]().next();
    const refused = expect(next).rejects.toMatchObject({ code: "not_found" });
    await pass();
    await refused;
  });

  test("an answer that makes no sense is a loss", async () => {
    connect();
    follow(client.runs({}));
    await pass();
    for (const socket of gateway.sockets) socket.onmessage?.({ data: "<html>" });
    expect(client.connection.getSnapshot()).toMatchObject({
      status: "waiting",
      problem: { code: "invalid_answer" },
    });
  });
});

describe("streams", () => {
  test("a slow reader of a fast stream holds nobody up, and misses nothing", async () => {
    connect();
    const { seen } = follow(client.stream("run_1", "llm", { maxParts: 10 }));
    const read: unknown[] = [];
    const reading = (async () => {
      for await (const part of client.stream("run_1", "llm", { maxParts: 10 })) {
        read.push(part);
        if (read.length % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 300));
      }
    })();
    await pass();
    const all = Array.from({ length: 200 }, (_, n) => n);
    for (let n = 0; n < 200; n += 5) {
      gateway.append("llm", ...all.slice(n, n + 5));
      await pass();
    }
    expect(seen.at(-1)?.parts).toEqual(all.slice(-10));
    expect(read.length).toBeLessThan(200);
    gateway.end("llm");
    await pass(30_000);
    await reading;
    expect(read).toEqual(all);
  });

  test("who comes late gets the text so far as one piece, then what is added", async () => {
    connect();
    gateway.append("llm", "a", "b", "c");
    follow(client.stream("run_1", "llm"));
    await pass();
    const pieces: string[] = [];
    const reading = (async () => {
      for await (const piece of client.stream("run_1", "llm").text()) pieces.push(piece);
    })();
    await pass();
    gateway.append("llm", "d");
    await pass();
    gateway.end("llm");
    await pass();
    await reading;
    expect(pieces).toEqual(["abc", "d"]);
  });

  test("a client that is closed ends what is read", async () => {
    connect();
    gateway.append("llm", 1, 2, 3);
    const read: unknown[] = [];
    const reading = (async () => {
      for await (const part of client.stream("run_1", "llm", { maxParts: 1 })) read.push(part);
    })();
    await pass(500);
    client.close();
    await pass();
    await reading;
    expect(read).toEqual([1, 2, 3]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("memory stays flat over a hundred thousand parts", async () => {
    connect();
    const feed = client.stream("run_1", "llm", { maxParts: 100, maxText: 1000 });
    follow(feed);
    await pass();
    for (let n = 0; n < 100_000; n++) {
      gateway.append("llm", `${String(n)},`);
      gateway.deliver();
    }
    await pass();
    const { parts, times, text, firstOffset, textOffset } = feed.getSnapshot();
    expect([parts.length, times.length]).toEqual([100, 100]);
    expect([firstOffset, times[0], text.length]).toEqual([99_900, 100_900, 1000]);
    expect(textOffset + text.length).toBe(588_890); // characters of all
    expect(text.endsWith("99998,99999,")).toBe(true);
  });

  test("from the latest part, after a loss nothing that came meanwhile is missing", async () => {
    connect();
    gateway.append("llm", 1, 2);
    const feed = client.stream("run_1", "llm", { from: "latest" });
    follow(feed);
    await pass();
    gateway.cut();
    gateway.append("llm", 3);
    await pass(1000);
    expect(feed.getSnapshot()).toMatchObject({ parts: [3], firstOffset: 2 });
  });
});

describe("what tools can see", () => {
  test("every frame, with what it is of", async () => {
    const frames: string[] = [];
    connect({
      onFrame: (frame, of) =>
        frames.push(`${"stream" in of ? of.stream.key : "runs"} ${frame.type}`),
    });
    gateway.change("run_1");
    gateway.append("llm", "a");
    const run = follow(client.run("run_1"));
    follow(client.stream("run_1", "llm"));
    await pass();
    expect(frames).toEqual(["runs run", "runs up-to-date", "llm parts", "llm up-to-date"]);
    run.stop();
    gateway.cut();
    await pass();
    expect(frames).toContain("llm lost");
  });

  test("how long the gateway took to answer, and when the next attempt is made", async () => {
    connect();
    follow(client.runs({}));
    await pass();
    client.ping();
    await vi.advanceTimersByTimeAsync(20);
    gateway.deliver();
    expect(client.connection.getSnapshot()).toMatchObject({ status: "open", latencyMs: 20 });
    gateway.isUp = false;
    gateway.cut();
    await vi.advanceTimersByTimeAsync(1);
    const { status, retryAt = 0 } = client.connection.getSnapshot();
    expect(status).toBe("waiting");
    expect(retryAt).toBeGreaterThan(Date.now());
  });
});

describe("pace", () => {
  test("a burst is told of together", async () => {
    connect();
    const { seen } = follow(client.runs({}));
    await pass();
    seen.length = 0;
    for (let n = 0; n < 100; n++) gateway.change(`run_${String(n)}`);
    await pass();
    expect(seen).toHaveLength(1);
    expect(seen[0]?.runs).toHaveLength(100);
  });

  test("throttled: the first news at once, the newest at the end of each span", async () => {
    connect();
    gateway.change("run_1", { attemptCount: 0 });
    const { seen } = follow(client.run("run_1", { throttleMs: 1000 }));
    await pass(2000);
    seen.length = 0;
    for (let n = 1; n <= 50; n++) {
      gateway.change("run_1", { attemptCount: n });
      await pass(50);
    }
    await pass(1100);
    const counts = seen.map(({ run }) => run?.attemptCount);
    expect(counts[0]).toBe(1);
    expect(counts.at(-1)).toBe(50);
    expect(counts.length).toBeLessThan(6);
  });

  test("a snapshot is the same object until something changes", async () => {
    connect();
    gateway.change("run_1");
    const feed = client.run("run_1");
    const one = feed.getSnapshot();
    expect(feed.getSnapshot()).toBe(one);
    follow(feed);
    await pass();
    const two = feed.getSnapshot();
    expect(two).not.toBe(one);
    await pass(1000);
    expect(feed.getSnapshot()).toBe(two);
  });
});
