// What a check has at hand: a configured client, a worker that moves runs, and the raw HTTP.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { VERSION } from "./clients.mjs";

const PATIENCE_MS = 45_000;

export class Stage {
  #strays;
  #page;

  /** `strays` gets every error that nobody took care of. */
  constructor(generation, { sdk }, strays) {
    this.generation = generation;
    this.sdk = sdk;
    this.#strays = strays;
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

  /** A token that a backend would give to a browser. */
  async token(scopes, options = {}) {
    return await this.sdk.auth.createPublicToken({ scopes, ...options });
  }

  /** The page of this check, which shows what hooks give. */
  async page() {
    this.#page ??= (async () => {
      const { Page } = await import("./page.mjs");
      return await Page.open(this);
    })();
    return await this.#page;
  }

  /** End what is still going on; an error that was left behind is thrown. */
  async close() {
    if (this.#page) await (await this.#page).close();
    await new Promise((resolve) => setImmediate(resolve));
    if (this.#strays.length) throw this.#strays[0];
  }

  /** Wait for an error that nobody takes care of, as some clients leave them behind. */
  async stray(fits, what = String(fits)) {
    for (let waited = 0; waited < PATIENCE_MS; waited += 20) {
      const place = this.#strays.findIndex(fits);
      if (place >= 0) return this.#strays.splice(place, 1)[0];
      await this.pause(20);
    }
    throw new Error(`waited in vain for an error: ${what}`);
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
        // Batches wrap what went wrong.
        assert.equal(error.status ?? error.cause?.status, status, String(error));
        return true;
      },
    );
  }

  /** A key of the form that never signs tokens, for the same environment. */
  async additionalKey() {
    const key = `tr_dev_sk_${"a1B2c3".repeat(4)}`;
    await this.ask(`add the key ${key}`);
    return key;
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
    this.#intercept(part, async (address, answer) => statuses.push((await answer).status));
    return statuses;
  }

  /** The addresses of all requests from now on that contain this. */
  watchAddresses(part) {
    const addresses = [];
    this.#intercept(part, (address) => addresses.push(new URL(address)));
    return addresses;
  }

  #intercept(part, look) {
    const plainFetch = globalThis.fetch;
    globalThis.fetch = (input, init) => {
      const answer = plainFetch(input, init);
      const address = String(input.url ?? input);
      if (address.includes(part)) Promise.resolve(look(address, answer)).catch(() => {});
      return answer;
    };
  }

  /** Do something as soon as it succeeds. */
  async eventually(work) {
    for (let waited = 0; ; waited += 100) {
      try {
        return await work();
      } catch (error) {
        if (waited >= PATIENCE_MS) throw error;
        await this.pause(100);
      }
    }
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
