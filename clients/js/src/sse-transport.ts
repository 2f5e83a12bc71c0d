// Each subscription on an event stream of its own, over fetch; docs/protocol.md "Server-Sent Events".
//
// fetch and not EventSource, because only fetch can keep the token out of the address.

import { DOUBT_MS, HELLO_MS, PONG_MS, SILENCE_MS } from "./constants.js";
import { problemOf, remedyFor, type Problem } from "./errors.js";
import { isLast } from "./frame.js";
import { decodeEvent } from "./sse-frame.js";
import type { Request } from "./request.js";
import { urlOf } from "./request-url.js";
import { SseParser } from "./sse-parser.js";
import type { Address, Outcome, Transport, TransportEvents } from "./transport.js";

export class SseTransport implements Transport {
  readonly #baseURL: string;
  readonly #events: TransportEvents;
  readonly #fetch: typeof fetch;
  readonly #responses = new Map<string, EventStream>();
  #token: string;
  #heard = false;
  #isOver = false;

  constructor(
    { baseURL, token }: Address,
    events: TransportEvents,
    fetch: typeof globalThis.fetch,
  ) {
    this.#baseURL = baseURL;
    this.#token = token;
    this.#events = events;
    this.#fetch = fetch;
  }

  subscribe(id: string, request: Request): void {
    const stream = new EventStream();
    this.#responses.set(id, stream);
    void this.#follow(id, request, stream).then((outcome) => {
      if (outcome && this.#responses.get(id) === stream) this.#end(outcome);
    });
  }

  unsubscribe(id: string): void {
    this.#responses.get(id)?.abort();
    this.#responses.delete(id);
  }

  authenticate(token: string): void {
    this.#token = token;
    for (const stream of this.#responses.values()) void this.#renew(stream);
  }

  /** Nobody can be asked here; each new response tells. */
  ping(): void {}

  doubt(): void {
    for (const stream of this.#responses.values()) stream.doubt();
  }

  close(): void {
    this.#isOver = true;
    for (const id of [...this.#responses.keys()]) this.unsubscribe(id);
  }

  /** Follow one response to its end; gives an outcome if that is the end of all. */
  async #follow(id: string, request: Request, stream: EventStream): Promise<Outcome | undefined> {
    const askedAt = Date.now();
    try {
      const response = await this.#ask(urlOf(this.#baseURL, request), { signal: stream.signal });
      this.#events.answered(Date.now() - askedAt);
      if (response.status === 204) {
        this.#pass(id, stream, { type: "end", end: { reason: "finished" } });
        return undefined;
      }
      if (!response.ok) return await this.#refusal(id, stream, response);
      if (!response.body) return this.#lost(id, stream, HELD_BACK);
      return await this.#read(id, stream, response.body.getReader());
    } catch (error) {
      return this.#lost(
        id,
        stream,
        stream.problem ?? { code: "connection_lost", message: messageOf(error) },
      );
    }
  }

  /** A response that cannot be given the newer token ends with the one that it began with. */
  async #renew({ id, signal }: EventStream): Promise<void> {
    if (!id) return;
    try {
      const response = await this.#ask(`${this.#baseURL}/api/v1/connections/${id}/token`, {
        method: "POST",
        signal,
      });
      if (response.ok) this.#events.ready(((await response.json()) as Renewed).expiresAt);
    } catch {
      // As above.
    }
  }

  #ask(url: string, init: RequestInit): Promise<Response> {
    return this.#fetch.call(undefined, url, {
      headers: { accept: "text/event-stream", authorization: `Bearer ${this.#token}` },
      cache: "no-store",
      ...init,
    });
  }

  async #read(
    id: string,
    stream: EventStream,
    reader: ReadableStreamDefaultReader<Uint8Array>,
  ): Promise<Outcome | undefined> {
    const parser = new SseParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return this.#lost(id, stream, BROKEN_OFF);
      stream.heard();
      if (!this.#heard) {
        this.#heard = true;
        this.#events.ready(undefined);
      }
      for (const event of parser.receive(value)) {
        const frame = decodeEvent(event);
        if (frame === undefined) continue;
        switch (frame.type) {
          case "connection":
            stream.id = frame.id;
            this.#events.ready(frame.expiresAt);
            break;
          case "authenticated":
          case "pong":
            break;
          case "expired":
            return { kind: "expired" };
          case "reconnect":
            return { kind: "reconnect", delayMs: frame.reconnect.delayMs };
          default:
            if (!this.#pass(id, stream, frame)) return undefined;
        }
      }
    }
  }

  /** Hand a frame on; false if nobody is interested any more. */
  #pass(id: string, stream: EventStream, frame: Parameters<TransportEvents["frame"]>[1]): boolean {
    if (this.#responses.get(id) !== stream) return false;
    if (isLast(frame)) this.unsubscribe(id);
    this.#events.frame(id, frame);
    return !isLast(frame);
  }

  async #refusal(
    id: string,
    stream: EventStream,
    response: Response,
  ): Promise<Outcome | undefined> {
    const problem = problemOf(response.status, await response.json().catch(() => undefined));
    this.#heard ||= response.headers.get("server") === "runcast";
    if (remedyFor(problem.code) === "renew") return { kind: "expired" };
    if (response.status === 401) return { kind: "refused", problem };
    // What stands in front of a gateway says so too; that is a reason to try the other transport.
    if (response.status >= 500) return this.#lost(id, stream, problem);
    this.#pass(id, stream, { type: "problem", problem });
    return undefined;
  }

  /** One response is lost; while there are others, that is no reason to end them too. */
  #lost(id: string, stream: EventStream, problem: Problem): Outcome | undefined {
    if (this.#responses.size === 1) return { kind: "lost", heard: this.#heard, problem };
    this.#pass(id, stream, { type: "problem", problem });
    return undefined;
  }

  #end(outcome: Outcome): void {
    if (this.#isOver) return;
    this.close();
    this.#events.closed(outcome);
  }
}

interface Renewed {
  readonly expiresAt?: number;
}

const HELD_BACK: Problem = {
  code: "no_answer",
  message:
    "The gateway says something at once; nothing came. " +
    "Does a proxy hold answers back, or `fetch`, as that of React Native does?",
};
const BROKEN_OFF: Problem = { code: "connection_lost", message: "The answer broke off." };

/** What can end one response early: its reader, or a silence that is too long. */
class EventStream {
  readonly #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #heardAt: number | undefined;
  id: string | undefined;
  problem: Problem | undefined;

  constructor() {
    this.#silentFor(HELLO_MS, HELD_BACK);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  heard(): void {
    this.#heardAt = Date.now();
    this.#silentFor(SILENCE_MS + PONG_MS);
  }

  /** Nobody can be asked here, so let it be heard of soon if it was silent for long. */
  doubt(): void {
    if (this.#heardAt !== undefined && Date.now() - this.#heardAt > SILENCE_MS) {
      this.#silentFor(DOUBT_MS);
    }
  }

  abort(): void {
    clearTimeout(this.#timer);
    this.#abort.abort();
  }

  #silentFor(
    ms: number,
    problem: Problem = { code: "connection_lost", message: "The gateway fell silent." },
  ): void {
    clearTimeout(this.#timer);
    if (this.signal.aborted) return; // what still came when it was ended
    this.#timer = setTimeout(() => {
      this.problem = problem;
      this.abort();
    }, ms);
  }
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // Node.js tells the reason in the cause.
  return error.cause instanceof Error ? error.cause.message : error.message;
}
