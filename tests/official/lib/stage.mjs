// What a check has at hand: a configured client, a worker that moves runs, and the raw HTTP.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { VERSION } from "./clients.mjs";

const PATIENCE_MS = 15_000;

export class Stage {
  constructor(generation, { sdk }) {
    this.generation = generation;
    this.sdk = sdk;
    this.url = process.env.RUNCAST_URL;
    this.key = process.env.RUNCAST_SECRET_KEY;
    this.assert = assert;
    sdk.configure({ accessToken: this.key, baseURL: this.url });
  }

  get isOld() {
    return this.generation === "v3";
  }

  /** Let the client work with another token or key; what begins in the body goes on with it. */
  async as(accessToken, body) {
    // `configure` would not do: clients of 3.3 hear it only once.
    return await this.sdk.auth.withAuth({ accessToken, baseURL: this.url }, body);
  }

  /** One request to the gateway, past the client. */
  async request(method, path, body, { token = this.key, headers = {} } = {}) {
    const answer = await fetch(new URL(path, this.url), {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        "trigger-version": VERSION[this.generation],
        ...(this.isOld ? {} : { "x-trigger-api-version": "2025-07-16" }),
        ...headers,
      },
      body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** Trigger a run past the client, and give its id. */
  async trigger(task = "hello", { payload = { n: 1 }, ...options } = {}) {
    const path = `/api/v1/tasks/${encodeURIComponent(task)}/trigger`;
    return (await this.request("POST", path, { payload, options })).id;
  }

  /** Change a run as its worker does. */
  async work(run, fields) {
    await this.request("PATCH", `/api/v1/runs/${run}`, fields);
  }

  async finish(run, fields = {}) {
    await this.work(run, { status: "COMPLETED_SUCCESSFULLY", output: { done: true }, ...fields });
  }

  async setMetadata(run, metadata) {
    await this.request("PUT", `/api/v1/runs/${run}/metadata`, { metadata });
  }

  /** Write the whole of a stream. */
  async stream(run, key, parts) {
    const lines = parts.map((part) => `${JSON.stringify(part)}\n`).join("");
    await this.request("PUT", `/realtime/v1/streams/${run}/self/${key}`);
    await this.request("POST", `/realtime/v1/streams/${run}/self/${key}`, lines);
  }

  /** Expect a call of the client to fail with this HTTP status. */
  async fails(status, call) {
    await assert.rejects(
      async () => await call(),
      (error) => {
        assert.equal(error.status, status, String(error));
        return true;
      },
    );
  }

  /** Ask whoever started this process for something, such as "restart the gateway". */
  async ask(what) {
    const line = new Promise((resolve) => {
      const input = createInterface({ input: process.stdin });
      input.once("line", (text) => {
        input.close();
        resolve(text);
      });
    });
    process.stdout.write(`${JSON.stringify({ ask: what })}\n`);
    assert.equal(await line, "done");
  }

  /** The statuses of all answers from now on to requests whose address contains this. */
  watchRequests(part) {
    const statuses = [];
    const plainFetch = globalThis.fetch;
    globalThis.fetch = async (input, init) => {
      const answer = await plainFetch(input, init);
      if (String(input.url ?? input).includes(part)) statuses.push(answer.status);
      return answer;
    };
    return statuses;
  }

  async pause(milliseconds) {
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }

  /** Read from an iterator until something comes that fits; give all that came. */
  async until(iterator, fits, what = "the expected state") {
    const seen = [];
    for (;;) {
      const step = await this.soon(iterator.next(), `${what}; came: ${brief(seen)}`);
      if (step.done) throw new Error(`ended before ${what}; came: ${brief(seen)}`);
      seen.push(step.value);
      if (fits(step.value)) return seen;
    }
  }

  /** Wait for something, not for ever. */
  soon(promise, what = "what is expected", milliseconds = PATIENCE_MS) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), milliseconds);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
  }
}

function brief(values) {
  return JSON.stringify(values.map((value) => value?.status ?? value?.type ?? value)).slice(0, 600);
}
