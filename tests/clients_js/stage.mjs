// What a scene has at hand: clients of the built package, a worker that moves runs, and whoever
// started this process, who can restart the gateway or cut its connections.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { createChatTransport } from "../../clients/js/dist/ai/index.js";
import { createClient } from "../../clients/js/dist/index.js";

const PATIENCE_MS = 45_000;

export class Stage {
  assert = assert;
  #answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  #clients = [];

  constructor(transport, url, key) {
    this.transport = transport;
    this.url = url;
    this.key = key;
  }

  client(options = {}) {
    const client = createClient({
      baseURL: this.url,
      token: this.key,
      transports: [this.transport],
      ...options,
    });
    this.#clients.push(client);
    return client;
  }

  chatTransport(options) {
    return createChatTransport({ baseURL: this.url, transports: [this.transport], ...options });
  }

  close() {
    for (const client of this.#clients) client.close();
  }

  /** One request to the gateway, past the client. */
  async request(method, path, body) {
    const answer = await fetch(new URL(path, this.url), {
      method,
      headers: { authorization: `Bearer ${this.key}`, "content-type": "application/json" },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await answer.text();
    assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  async trigger(options = {}) {
    return (await this.request("POST", "/api/v1/tasks/hello/trigger", { payload: { n: 1 }, options }))
      .id;
  }

  async work(run, fields) {
    await this.request("PATCH", `/api/v1/runs/${run}`, fields);
  }

  async append(run, key, chunks) {
    const lines = chunks.map((chunk) => `${JSON.stringify(chunk)}\n`).join("");
    await this.request("POST", `/realtime/v1/streams/${run}/self/${key}`, lines);
  }

  async closeStream(run, key) {
    await this.request("POST", `/realtime/v1/streams/${run}/self/${key}/close`);
  }

  /** A public token that is good for so many seconds. */
  async mint(scopes, seconds) {
    const expirationTime = Math.floor(Date.now() / 1000) + seconds;
    const path = "/api/v1/auth/public-tokens";
    return (await this.request("POST", path, { scopes, expirationTime })).token;
  }

  /** Ask whoever started this process for something. */
  async ask(what) {
    process.stdout.write(`${JSON.stringify({ ask: what })}\n`);
    assert.equal((await this.#answers.next()).value, "done");
  }

  /** Wait until a store's snapshot fits; gives all that were seen. */
  async until(store, fits) {
    const seen = [];
    return await new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        end();
        reject(new Error(`waited in vain; last: ${JSON.stringify(seen.at(-1))?.slice(0, 800)}`));
      }, PATIENCE_MS);
      const look = () => {
        const snapshot = store.getSnapshot();
        seen.push(snapshot);
        if (!fits(snapshot)) return;
        end();
        resolve(seen);
      };
      const stop = store.subscribe(look);
      const end = () => {
        clearTimeout(timer);
        setImmediate(stop);
      };
      look();
    });
  }
}
