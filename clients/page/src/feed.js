// One feed, of runs or of a stream, over fetch: connects, reads, resumes from the last cursor,
// backs off.
//
//   connecting ─► live ─► ended      (end, 204)
//    ▲    │        │
//    │    ▼        ▼
//   retrying / offline ◄─ lost       (also: reconnect, 5xx, 429)
//
//   stopped: by stop(); start() goes on from the cursor.
//   expired: waits for useToken(). refused: the answer will not change by asking again.
//
// fetch and not EventSource, because only fetch can keep the token out of the URL.

import { SseParser } from "./sse.js";

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const SILENCE_MS = 45_000; // the gateway says something every 15 s

const TRY_AGAIN = new Set([
  "internal_error",
  "limit_exceeded",
  "too_many_subscriptions",
  "too_many_connections",
  "slow_consumer",
  "backend_unavailable",
  "draining",
  "position_lost",
]);
const FRESH_START = new Set(["invalid_cursor", "position_lost"]);

export class Feed {
  state = "connecting";
  message = "";
  retryAt = 0; // in the clock of Date.now()
  cursor = "";
  events = 0;
  connections = 0;

  #url;
  #token;
  #handlers;
  #attempt = 0;
  #abort = new AbortController();
  #timer = null;

  // handlers: onEvent(type, data, id); the parts of a stream are of type "message", their data a
  // text, that of all others is parsed. onForget() when a snapshot replaces all that was known,
  // onState(feed) after each change of the fields above, onRaw(event).
  constructor(url, token, handlers) {
    this.#url = url;
    this.#token = token;
    this.#handlers = handlers;
  }

  start() {
    clearTimeout(this.#timer);
    this.#abort.abort();
    const abort = (this.#abort = new AbortController());
    this.#set("connecting");
    this.#connect(abort).then(
      (outcome) => abort === this.#abort && this.#settle(outcome),
      () => abort === this.#abort && this.#settle(lost()),
    );
  }

  stop() {
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#abort = new AbortController();
    if (this.state !== "ended") this.state = "stopped";
  }

  // `start`: false leaves a feed at rest that is not followed now.
  useToken(token, start = true) {
    this.#token = token;
    this.#attempt = 0;
    if (start) this.start();
  }

  // The network, or the person, has come back: do not wait for the timer.
  tryNow() {
    if (this.state !== "retrying" && this.state !== "offline") return;
    this.#attempt = 0;
    this.start();
  }

  // The network changed under an open connection: it may be dead without saying so.
  mistrust() {
    if (this.state === "live" || this.state === "connecting") this.start();
    else this.tryNow();
  }

  async #connect(abort) {
    const headers = { Accept: "text/event-stream", Authorization: `Bearer ${this.#token}` };
    if (this.cursor) headers["Last-Event-ID"] = this.cursor;
    const silence = new Silence(() => abort.abort());
    try {
      const response = await fetch(this.#url, { headers, signal: abort.signal, cache: "no-store" });
      if (response.status === 204) return { state: "ended", message: "finished" };
      if (!response.ok) return await this.#refusal(response);
      if (abort !== this.#abort) return null;
      this.connections += 1;
      if (!this.cursor) this.#handlers.onForget();
      return await this.#read(response.body.getReader(), abort, silence);
    } finally {
      silence.end();
    }
  }

  async #read(reader, abort, silence) {
    const parser = new SseParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (abort !== this.#abort) return null; // replaced while reading
      if (done) return lost();
      silence.heard();
      for (const event of parser.receive(value)) {
        const over = this.#take(event);
        // Last, and event by event: what was not taken in must come again.
        if (event.id !== null) this.cursor = event.id;
        if (over) {
          abort.abort();
          return over;
        }
      }
      this.#changed();
    }
  }

  // Take one event in; the answer says how the feed is over, if it is.
  #take(event) {
    if (event.type === "id") return null; // with a keep-alive
    this.events += 1;
    this.#handlers.onRaw(event);
    const data = event.type === "message" ? event.data : JSON.parse(event.data);
    if (event.type === "expired") return { state: "expired", message: data.message };
    if (event.type === "problem") return judge(0, data.code, data.message, null);
    if (event.type === "reconnect") return { state: "retrying", delay: data.delayMs };
    if (event.type === "reset") {
      this.cursor = "";
      this.#handlers.onForget();
    }
    if (event.type === "end") {
      this.#handlers.onEvent(event.type, data);
      return { state: "ended", message: data.reason };
    }
    if (event.type === "up-to-date") {
      this.#attempt = 0;
      this.#set("live");
    }
    this.#handlers.onEvent(event.type, data, event.id);
    return null;
  }

  async #refusal(response) {
    const body = await response.json().catch(() => ({}));
    const after = Number(response.headers.get("retry-after")) * 1000;
    const message = typeof body.error === "string" ? body.error : `HTTP ${response.status}`;
    return judge(response.status, body.code, message, after > 0 ? after : null);
  }

  #settle(outcome) {
    if (outcome === null) return;
    if (FRESH_START.has(outcome.code)) this.cursor = "";
    if (outcome.state !== "retrying") return this.#set(outcome.state, outcome.message);
    const delay = Math.min(outcome.delay ?? jittered(this.#attempt), LONGEST_DELAY_MS);
    this.#attempt += 1;
    this.retryAt = Date.now() + delay;
    this.#timer = setTimeout(() => this.start(), delay);
    // A page of this very machine works without a network too, so offline is not a reason to rest.
    this.#set(navigator.onLine ? "retrying" : "offline", outcome.message);
  }

  #set(state, message = "") {
    this.state = state;
    this.message = message;
    this.#changed();
  }

  #changed() {
    this.#handlers.onState(this);
  }
}

// Calls back once when nothing was heard for too long, as after a laptop's sleep.
class Silence {
  #callback;
  #timer;

  constructor(callback) {
    this.#callback = callback;
    this.heard();
  }

  heard() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#callback, SILENCE_MS);
  }

  end() {
    clearTimeout(this.#timer);
  }
}

function lost() {
  return { state: "retrying", message: "The connection was lost." };
}

function judge(status, code, message, delay) {
  if (code === "expired_token") return { state: "expired", code, message };
  const again = TRY_AGAIN.has(code) || FRESH_START.has(code) || status === 429 || status >= 500;
  return { state: again ? "retrying" : "refused", code, message, delay };
}

// Half of the delay is chance, so that many pages do not come back in one moment.
function jittered(attempt) {
  const longest = Math.min(FIRST_DELAY_MS * 2 ** attempt, LONGEST_DELAY_MS);
  return longest * (0.5 + Math.random() / 2);
}
