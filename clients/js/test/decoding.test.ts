import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeMessage } from "../src/frame.js";
import { decodeEvent } from "../src/sse-frame.js";
import { SseParser, type ServerSentEvent } from "../src/sse-parser.js";
import { aRun } from "./support/runs.js";

const encoder = new TextEncoder();

function parse(text: string): ServerSentEvent[] {
  return new SseParser().receive(encoder.encode(text));
}

describe("the parser of event streams", () => {
  test("reads what the gateway sends", () => {
    expect(
      parse(
        "retry: 1000\n\nid: c1\nevent: up-to-date\ndata: {}\n\n: keep-alive\nid: c2\n\nid: \nevent: reset\ndata: {}\n\n",
      ),
    ).toEqual([
      { type: "up-to-date", data: "{}", id: "c1" },
      { type: "id", data: "", id: "c2" },
      { type: "reset", data: "{}", id: "" },
    ]);
  });

  test("joins lines of data, takes any line end, and one space away", () => {
    expect(parse("data:a\r\ndata:  b\rdata\n\r\n")).toEqual([
      { type: "message", data: "a\n b\n", id: undefined },
    ]);
  });

  test("gives the same events however the bytes are cut", () => {
    const field = fc.constantFrom("data: é😀", "event: run", "id: 12-3", ": hm", "x: y", "data:");
    const text = fc
      .array(fc.tuple(field, fc.constantFrom("\n", "\r\n", "\r", "\n\n", "\r\n\r\n")))
      .map((lines) => lines.flat().join(""));
    fc.assert(
      fc.property(text, fc.array(fc.nat(40)), (whole, cuts) => {
        const bytes = encoder.encode(whole);
        const parser = new SseParser();
        const events: ServerSentEvent[] = [];
        let at = 0;
        for (const cut of cuts) {
          events.push(...parser.receive(bytes.slice(at, at + cut)));
          at += cut;
        }
        events.push(...parser.receive(bytes.slice(at)));
        expect(events).toEqual(parse(whole));
      }),
    );
  });

  test("does not keep an event without end", () => {
    const parser = new SseParser();
    const piece = encoder.encode("x".repeat(8 * 1024 * 1024));
    expect(() => {
      for (let i = 0; i < 9; i++) parser.receive(piece);
    }).toThrow(RangeError);
  });
});

describe("events become the messages that they would be on a WebSocket", () => {
  const run = aRun();
  test.each([
    ["run", JSON.stringify(run), { type: "run", run }],
    [
      "gone",
      '{"id":"run_1","reason":"deleted"}',
      { type: "gone", gone: { id: "run_1", reason: "deleted" } },
    ],
    ["up-to-date", '{"offset":3}', { type: "up-to-date", offset: 3 }],
    ["end", '{"reason":"finished"}', { type: "end", end: { reason: "finished" } }],
    [
      "problem",
      '{"code":"not_found","message":"m"}',
      { type: "problem", problem: { code: "not_found", message: "m" } },
    ],
  ])("%s", (type, data, frame) => {
    expect(decodeEvent({ type, data, id: undefined })).toEqual(frame);
    expect(decodeEvent({ type, data, id: "c" })).toEqual({ ...frame, cursor: "c" });
    expect(decodeMessage(JSON.stringify({ ...frame, id: "s", cursor: "c" }))).toEqual({
      id: "s",
      frame: { ...frame, cursor: "c" },
    });
  });

  test("a part is its JSON, or else a text", () => {
    const part = (data: string) => decodeEvent({ type: "message", data, id: "17-4" });
    expect(part('{"a":1}')).toEqual({ type: "parts", offset: 4, parts: [{ a: 1 }], times: [17] });
    expect(part("no json")).toEqual({ type: "parts", offset: 4, parts: ["no json"], times: [17] });
  });

  test("a part without offset is refused", () => {
    expect(() => decodeEvent({ type: "message", data: "1", id: undefined })).toThrow(SyntaxError);
  });

  test("kinds of a newer gateway are passed over", () => {
    expect(decodeEvent({ type: "new", data: "{}", id: undefined })).toBeUndefined();
    expect(decodeMessage('{"type":"new"}')).toBeUndefined();
    expect(decodeMessage('{"type":"new","id":"s"}')).toBeUndefined();
  });
});
