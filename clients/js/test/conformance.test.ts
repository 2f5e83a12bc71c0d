// The cases of `conformance/` on the client's side: what it makes of what the gateway sends.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { problemOf, remedyFor } from "../src/errors.js";
import { decodeMessage, type Frame, type Message } from "../src/frame.js";
import type { Link } from "../src/link.js";
import type { Position, Subject } from "../src/request.js";
import { RunSet } from "../src/run-set.js";
import { decodeEvent } from "../src/sse-frame.js";
import { SseParser } from "../src/sse-parser.js";
import { StreamLog } from "../src/stream-log.js";
import { Cell } from "../src/store.js";
import { Subscription, type Data } from "../src/subscription.js";
import { aRun } from "./support/runs.js";

type Json = Record<string, unknown>;

interface Case {
  readonly name: string;
  readonly messages: readonly Json[];
  readonly client: {
    readonly phase: string;
    readonly resets?: number;
    readonly shows?: readonly string[];
    readonly text?: string;
    readonly resumes: Position;
  };
}

function cases<Kind>(name: string): Kind[] {
  const file = new URL(`../../../conformance/cases/${name}.yaml`, import.meta.url);
  return parse(readFileSync(file, "utf8")) as Kind[];
}

describe("frames", () => {
  interface Sent {
    readonly name: string;
    readonly sse: string;
    readonly socket: Json;
    readonly read: Json;
  }

  test.each(cases<Sent>("frames"))("$name", ({ sse, socket, read }) => {
    const events = new SseParser().receive(new TextEncoder().encode(sse)).map(decodeEvent);
    const [first, ...others] = events as Extract<Frame, { type: "parts" }>[];
    // Each part is an event of its own.
    const parts = [first, ...others].flatMap((frame) => frame?.parts ?? []);
    expect(read["type"] === "parts" ? { ...first, parts } : first).toMatchObject(read);
    const { id, frame } = decodeMessage(JSON.stringify(socket)) as Message;
    expect(frame).toMatchObject(read);
    expect(id).toBe(socket["id"]);
  });
});

/** A subscription over a link that is the test's, with all that it received. */
function received<Kept extends Data>(data: Kept, subject: Subject, messages: readonly Json[]) {
  let receive: (frame: Frame) => void = () => undefined;
  const link: Link = {
    open: (_, given) => {
      receive = given;
      return () => undefined;
    },
    connection: new Cell({ status: "open", reconnects: 0 }),
    close: () => undefined,
  };
  const subscription = new Subscription(link, subject, data);
  subscription.follow();
  for (const message of messages) {
    receive(decodeMessage(JSON.stringify({ ...message, id: "s" }))?.frame as Frame);
  }
  const { status, resets } = subscription.progress;
  subscription.leave();
  return { phase: status, resets };
}

const written = (run: { id: string; revision: number }) => `${run.id} v${String(run.revision)}`;

describe("feeds", () => {
  test.each(cases<Case>("feeds"))("$name", ({ messages, client }) => {
    const set = new RunSet();
    const whole = messages.map((message) => {
      if (typeof message["run"] !== "string") return message;
      const [id = "", version] = message["run"].split(" v");
      return { ...message, run: aRun({ id, revision: Number(version) }) };
    });
    const { phase, resets } = received(set, { runs: {} }, whole);
    expect({
      phase,
      resets,
      shows: set.runs.map(written).sort(),
      resumes: set.position,
    }).toEqual({ resets: 0, ...client });
  });
});

describe("streams", () => {
  test.each(cases<Case & { from: number | "latest" }>("streams"))("$name", (given) => {
    const log = new StreamLog(given.from, { maxParts: 10, maxText: 100 });
    const messages = given.messages.map((message) => {
      if (message["type"] === "reset")
        return { ...message, reset: { reason: message["reset"], message: "m" } };
      // Times are not told in the cases.
      return { ...message, times: (message["parts"] as string[] | undefined)?.map(() => 0) };
    });
    const { phase, resets } = received(log, { stream: { run: "run_1", key: "llm" } }, messages);
    expect({ phase, resets, text: log.text, resumes: log.position }).toEqual({
      resets: 0,
      ...given.client,
    });
  });
});

interface Failure {
  readonly code: string;
  readonly status: number;
  readonly close: number;
  readonly remedy: string;
}

test.each(cases<Failure>("errors"))("what helps against $code", ({ code, status, remedy }) => {
  expect(problemOf(status, { code, error: "m" })).toEqual({ code, message: "m" });
  expect(remedyFor(code)).toBe(remedy);
});
