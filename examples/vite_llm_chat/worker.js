// The worker: takes a run, streams a model's answer into it, and finishes it. Trigger.dev's own
// workers speak another protocol, so this is plain HTTP: see docs/protocol.md.

import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { completion } from "./models.js";

const ATTEMPTS = 10;

/** Carry a run out from its start to its end, whichever that is. */
export async function carryOut(run, messages) {
  await change(run, { status: "EXECUTING" });
  try {
    const text = await pipe(run, "llm", completion(messages));
    await change(run, { status: "COMPLETED", output: { text } });
  } catch (error) {
    await change(run, { status: "FAILED", error: { name: error.name, message: error.message } });
  }
}

/**
 * Write texts into a stream of a run as they come, and give them as one.
 *
 * A connection that breaks is made anew, and goes on behind what the gateway has stored already.
 */
async function pipe(run, key, texts) {
  const path = `/realtime/v1/streams/${run}/self/${key}`;
  const writer = { "X-Client-Id": randomUUID() };
  const written = [];
  let state = "open";
  let ring = () => {};

  const reading = (async () => {
    try {
      for await (const text of texts) {
        written.push(text);
        ring();
      }
    } finally {
      state = "ended";
      ring();
    }
  })();
  reading.catch(() => {}); // it is awaited below, when all that came before is written

  async function* linesFrom(index) {
    const encoder = new TextEncoder();
    for (;;) {
      while (index < written.length) yield encoder.encode(`${JSON.stringify(written[index++])}\n`);
      if (state === "ended") return;
      await new Promise((resolve) => (ring = resolve));
    }
  }

  await insistently(async () => {
    const stored = await ask("HEAD", path, { headers: writer });
    const next = Number(stored.headers.get("X-Last-Chunk-Index")) + 1;
    const headers = { ...writer, "X-Resume-From-Chunk": String(next) };
    await ask("POST", path, { headers, body: linesFrom(next), duplex: "half" });
  });
  await reading;
  await insistently(() => ask("POST", `${path}/close`)); // readers need not wait for more
  return written.join("");
}

async function change(run, fields) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(fields);
  await insistently(() => ask("PATCH", `/api/v1/runs/${run}`, { headers, body }));
}

/** Do something again, ever more patiently, while the gateway is away. */
async function insistently(what) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await what();
    } catch (error) {
      if (error.isFinal || attempt === ATTEMPTS) throw error;
      await pause(Math.min(100 * 2 ** attempt, 5000));
    }
  }
}

async function ask(method, path, { headers, ...rest } = {}) {
  const answer = await fetch(new URL(path, process.env.TRIGGER_API_URL), {
    method,
    headers: { Authorization: `Bearer ${process.env.TRIGGER_SECRET_KEY}`, ...headers },
    ...rest,
  });
  if (answer.ok) return answer;
  const error = new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  throw Object.assign(error, { isFinal: answer.status < 500 && answer.status !== 429 });
}
