// The small pure parts, each by its rules.

import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { delayBefore } from "../src/backoff.js";
import { manyRuns, oneRun } from "../src/request.js";
import { urlOf } from "../src/request-url.js";
import { RunSet } from "../src/run-set.js";
import { StreamLog } from "../src/stream-log.js";
import { textOf } from "../src/stream-text.js";
import { TokenSource } from "../src/token-source.js";
import { TransportChoice } from "../src/transport-choice.js";
import { aRun } from "./support/runs.js";

test("delays grow to half a minute, and half of each is chance", () => {
  expect([0, 1, 2, 10, 1000].map((attempt) => delayBefore(attempt, 1))).toEqual([
    500, 1000, 2000, 30_000, 30_000,
  ]);
  expect(delayBefore(3, 0)).toBe(2000);
});

describe("requests", () => {
  const now = Date.parse("2026-01-10T00:00:00Z");

  test("equal things have equal JSON", () => {
    const json = (which: Parameters<typeof manyRuns>[0], skip?: string[]) =>
      JSON.stringify(manyRuns(which, skip, now));
    expect(json({ tags: ["b", "a", "a"] }, ["y", "x"])).toBe(
      json({ tags: ["a", "b"] }, ["x", "y"]),
    );
    expect(json({ tags: "a", task: "t" } as never)).toBe(json({ task: "t", tags: ["a"] } as never));
    expect(json({ tags: [] })).toBe(json({}));
  });

  test("a duration becomes a date, so that resuming does not move the bound", () => {
    expect(manyRuns({ createdAt: "1d12h" }, undefined, now)).toEqual({
      runs: { createdAt: "2026-01-08T12:00:00.000Z" },
    });
    expect(manyRuns({ createdAt: "2026-01-02T00:00:00Z" }, undefined, now)).toEqual({
      runs: { createdAt: "2026-01-02T00:00:00Z" },
    });
  });

  test("addresses of event streams", () => {
    const url = (request: Parameters<typeof urlOf>[1]) => urlOf("http://h", request);
    expect(url({ ...oneRun("run/1", ["payload"], true), cursor: "c=" })).toBe(
      "http://h/realtime/v1/runs/run%2F1?skipColumns=payload&cursor=c%3D&stay=true",
    );
    expect(url(manyRuns({ batch: "batch_1" }, undefined, now))).toBe(
      "http://h/realtime/v1/batches/batch_1",
    );
    expect(url({ stream: { run: "run_1", key: "a/b" }, from: 7 })).toBe(
      "http://h/realtime/v1/streams/run_1/a%2Fb?from=7",
    );
  });
});

describe("a set of runs", () => {
  test("takes no state that is older than the known one", () => {
    const set = new RunSet();
    const newer = aRun({ revision: 3 });
    for (const run of [newer, aRun({ revision: 2 }), aRun({ revision: 3 })]) {
      set.take({ type: "run", run });
    }
    expect(set.runs).toHaveLength(1);
    expect(set.runs[0]).toBe(newer);
  });

  test("keeps runs newest first, and the array while nothing changes", () => {
    const set = new RunSet();
    set.take({ type: "run", run: aRun({ id: "run_a", createdAt: "2026-01-01" }) });
    set.take({ type: "run", run: aRun({ id: "run_b", createdAt: "2026-01-02" }), cursor: "c1" });
    expect(set.runs.map((run) => run.id)).toEqual(["run_b", "run_a"]);
    const before = set.runs;
    set.take({ type: "cursor", cursor: "c2" });
    expect(set.runs).toBe(before);
    expect(set.position).toEqual({ cursor: "c2" });
  });

  test("keeps the newest runs where it may not keep all", () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        fc.integer({ min: 1, max: 4 }),
        (order, max) => {
          const set = new RunSet(max);
          for (const n of order) {
            set.take({
              type: "run",
              run: aRun({ id: `run_${String(n)}`, createdAt: `2026-01-0${String(n)}` }),
            });
          }
          const newest = [...order].sort((a, b) => b - a).slice(0, max);
          expect(set.runs.map((run) => run.id)).toEqual(newest.map((n) => `run_${String(n)}`));
        },
      ),
    );
  });

  test("forgets its position with its runs", () => {
    const set = new RunSet();
    set.take({ type: "run", run: aRun(), cursor: "c1" });
    set.forget();
    expect([set.runs, set.position]).toEqual([[], {}]);
  });

  test("a run that left can come back", () => {
    const set = new RunSet();
    set.take({ type: "run", run: aRun() });
    set.take({ type: "gone", gone: { id: "run_1", reason: "unmatched" } });
    expect(set.runs).toEqual([]);
    set.take({ type: "run", run: aRun() });
    expect(set.runs).toHaveLength(1);
  });
});

describe("a log of a stream", () => {
  const bounds = { maxParts: 5, maxText: 20 };

  test("keeps the newest parts and text, and each part counts once", () => {
    // Messages that overlap as after a resume, of a stream whose part n is the text "n,".
    const message = fc.tuple(fc.nat(3), fc.nat(6));
    fc.assert(
      fc.property(fc.array(message), (messages) => {
        const log = new StreamLog("start", bounds);
        let known = 0;
        for (const [back, count] of messages) {
          const offset = Math.max(known - back, 0);
          const parts = Array.from({ length: count }, (_, n) => `${String(offset + n)},`);
          log.take({ type: "parts", offset, parts, times: parts.map((_, n) => offset + n) });
          known = Math.max(known, offset + count);
        }
        const all = Array.from({ length: known }, (_, n) => `${String(n)},`);
        expect(log.partsFrom(0)).toEqual(all.slice(-bounds.maxParts));
        expect(log.text).toBe(all.join("").slice(-bounds.maxText));
        expect(log.textOffset).toBe(Math.max(all.join("").length - bounds.maxText, 0));
        expect(log.times).toEqual(all.map((_, n) => n).slice(-bounds.maxParts));
        expect(log.next ?? 0).toBe(known);
      }),
    );
  });

  test("refuses parts behind a gap, and stays where it was", () => {
    const log = new StreamLog("start", bounds);
    log.take({ type: "parts", offset: 0, parts: [0, 1], times: [1, 1] });
    expect(() => {
      log.take({ type: "parts", offset: 3, parts: [3], times: [1] });
    }).toThrow("missing");
    expect(log.position).toEqual({ from: 2 });
  });

  test("from the latest: it resumes where the gateway said that it began", () => {
    const log = new StreamLog("latest", bounds);
    expect(log.position).toEqual({ from: "latest" });
    log.take({ type: "up-to-date", offset: 41 });
    expect(log.position).toEqual({ from: 41 });
  });
});

test("text is what parts carry as text", () => {
  const parts = [
    "a",
    { choices: [{ delta: { content: "b" } }, { delta: {} }] },
    { type: "content_block_delta", delta: { type: "text_delta", text: "c" } },
    { type: "text-delta", delta: "d" },
    { type: "response.output_text.delta", delta: "e" },
    { type: "message_stop" },
    null,
    7,
    [1],
    { choices: [null] },
    { type: "content_block_delta" },
  ];
  expect(parts.map(textOf).join("")).toBe("abcde");
});

describe("the choice of a transport", () => {
  const choice = () => new TransportChoice(["websocket", "sse"]);

  test("all take turns while nothing gets through", () => {
    const mine = choice();
    const tried = Array.from({ length: 4 }, (_, now) => {
      const kind = mine.next(now);
      mine.failed(kind);
      return kind;
    });
    expect(tried).toEqual(["websocket", "sse", "websocket", "sse"]);
  });

  test("one that failed where another got through is tried again later, ever more rarely", () => {
    const mine = choice();
    mine.failed("websocket");
    mine.succeeded("sse", 0);
    expect(mine.next(59_999)).toBe("sse");
    expect(mine.betterAt("sse")).toBe(60_000);
    expect(mine.next(60_000)).toBe("websocket");
    mine.failed("websocket");
    mine.succeeded("sse", 60_000);
    expect(mine.betterAt("sse")).toBe(180_000);
    mine.forget();
    expect(mine.next(60_000)).toBe("websocket");
  });

  test("there is nothing better than the best", () => {
    expect(choice().betterAt("websocket")).toBeUndefined();
  });
});

describe("the source of tokens", () => {
  test("asks once for all who want a token at the same time, and again when it is spent", async () => {
    const ask = vi.fn<() => Promise<string>>();
    ask.mockResolvedValueOnce("one").mockResolvedValueOnce("two");
    const tokens = new TokenSource(ask);
    expect(await Promise.all([tokens.get(), tokens.get()])).toEqual(["one", "one"]);
    expect(await tokens.get()).toBe("one");
    tokens.spend("another");
    tokens.spend("one");
    expect(await tokens.get()).toBe("two");
    expect(ask).toHaveBeenCalledTimes(2);
  });

  test("a function that fails is named, and asked again the next time", async () => {
    const ask = vi.fn<() => string>();
    ask.mockImplementationOnce(() => {
      throw new Error("session over");
    });
    ask.mockReturnValueOnce("fine");
    const tokens = new TokenSource(ask);
    await expect(tokens.get()).rejects.toMatchObject({
      code: "token_unavailable",
      message: expect.stringContaining("session over") as string,
    });
    expect(await tokens.get()).toBe("fine");
  });

  test("a function that never answers is given up", async () => {
    vi.useFakeTimers();
    const waiting = new TokenSource(() => new Promise<string>(() => undefined)).get();
    const refused = expect(waiting).rejects.toMatchObject({ code: "token_unavailable" });
    await vi.advanceTimersByTimeAsync(30_000);
    await refused;
    vi.useRealTimers();
  });
});
