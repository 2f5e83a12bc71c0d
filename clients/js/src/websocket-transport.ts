// All subscriptions on one WebSocket; docs/protocol.md "WebSocket".

import {
  DOUBT_MS,
  HELLO_MS,
  PONG_MS,
  SILENCE_MS,
  SOCKET_PATH,
  SOCKET_PROTOCOL,
} from "./constants.js";
import { remedyFor, type Problem } from "./errors.js";
import { decodeMessage, isLast, type ConnectionFrame, type Frame, type Message } from "./frame.js";
import type { Request } from "./request.js";
import type { Address, Outcome, Transport, TransportEvents } from "./transport.js";

export class WebSocketTransport implements Transport {
  readonly #socket: WebSocket;
  readonly #events: TransportEvents;
  readonly #live = new Set<string>(); // run feeds that are up to date
  readonly #runs = new Set<string>(); // run feeds
  #unsent: object[];
  #isOpen = false;
  #heard = false; // whether the token was accepted
  #last: Outcome | undefined; // how it will have ended
  #timer: ReturnType<typeof setTimeout> | undefined;
  #awaitsPong = false;
  #askedAt = 0; // when the last ping was sent
  #isOver = false;

  constructor({ baseURL, token }: Address, events: TransportEvents, Socket: typeof WebSocket) {
    this.#events = events;
    this.#unsent = [{ type: "authenticate", token }];
    this.#socket = new Socket(baseURL.replace(/^http/, "ws") + SOCKET_PATH, [SOCKET_PROTOCOL]);
    this.#socket.onopen = () => {
      this.#isOpen = true;
      for (const command of this.#unsent.splice(0)) this.#send(command);
    };
    this.#socket.onmessage = ({ data }) => {
      this.#receive(data);
    };
    this.#socket.onclose = ({ code, reason }) => {
      this.#end(this.#last ?? outcomeOf(code, reason, this.#heard));
    };
    this.#silentFor(HELLO_MS);
  }

  subscribe(id: string, request: Request): void {
    if ("runs" in request) this.#runs.add(id);
    this.#send({ type: "subscribe", id, ...request });
  }

  unsubscribe(id: string): void {
    this.#runs.delete(id);
    this.#live.delete(id);
    this.#send({ type: "unsubscribe", id });
  }

  authenticate(token: string): void {
    this.#send({ type: "authenticate", token });
  }

  ping(): void {
    if (this.#heard && !this.#awaitsPong) this.#ping(PONG_MS);
  }

  doubt(): void {
    if (this.#heard && !this.#isOver) this.#ping(DOUBT_MS);
  }

  close(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#socket.onmessage = this.#socket.onclose = this.#socket.onopen = null;
    this.#socket.close();
  }

  #send(command: object): void {
    if (this.#isOpen) this.#socket.send(JSON.stringify(command));
    else this.#unsent.push(command);
  }

  #receive(data: unknown): void {
    this.#silentFor(this.#heard ? SILENCE_MS : HELLO_MS);
    let message: Message | undefined;
    try {
      message = decodeMessage(data as string);
    } catch {
      this.#fail({ code: "invalid_answer", message: "The gateway sent what is no JSON." });
      return;
    }
    if (message === undefined) return;
    if (message.id === undefined) this.#obey(message.frame);
    else this.#pass(message.id, message.frame);
  }

  #pass(id: string, frame: Frame): void {
    if (isLast(frame)) this.#runs.delete(id);
    if (frame.type === "up-to-date" && this.#runs.has(id)) this.#live.add(id);
    if (frame.type === "reset" || isLast(frame)) this.#live.delete(id);
    this.#events.frame(id, frame);
  }

  #obey(frame: ConnectionFrame): void {
    switch (frame.type) {
      case "authenticated":
        this.#heard = true;
        this.#silentFor(SILENCE_MS);
        this.#events.ready(frame.expiresAt);
        break;
      case "cursor":
        for (const id of this.#live) this.#events.frame(id, frame);
        break;
      case "expired":
        this.#last = { kind: "expired" };
        break;
      case "reconnect":
        this.#last = { kind: "reconnect", delayMs: frame.reconnect.delayMs };
        break;
      case "problem":
        // After the first word it is about a newer token; or the last word, as a close will tell.
        if (this.#heard) this.#events.tokenRefused();
        else this.#last = outcomeOfProblem(frame.problem, true);
        break;
      case "pong":
        this.#events.answered(Date.now() - this.#askedAt);
        break;
    }
  }

  /** Give the other side so long to say something. */
  #silentFor(ms: number): void {
    clearTimeout(this.#timer);
    this.#awaitsPong = false;
    this.#timer = setTimeout(() => {
      if (this.#heard && !this.#awaitsPong) this.#ping(PONG_MS);
      else if (this.#heard)
        this.#fail({ code: "connection_lost", message: "The gateway fell silent." });
      else this.#fail({ code: "no_answer", message: "No gateway answered on the WebSocket." });
    }, ms);
  }

  #ping(patience: number): void {
    this.#askedAt = Date.now();
    this.#send({ type: "ping" });
    this.#silentFor(patience);
    this.#awaitsPong = true;
  }

  #fail(problem: Problem): void {
    this.#end({ kind: "lost", heard: this.#heard, problem });
  }

  #end(outcome: Outcome): void {
    if (this.#isOver) return;
    this.close();
    this.#events.closed(outcome);
  }
}

function outcomeOfProblem(problem: Problem, heard: boolean): Outcome {
  const remedy = remedyFor(problem.code);
  if (remedy === "renew") return { kind: "expired" };
  return remedy === "stop" ? { kind: "refused", problem } : { kind: "lost", heard, problem };
}

/** Close codes of the gateway: 4000 to 4499 mean reconnect, 4500 to 4999 stop; the reason is the error's code. */
function outcomeOf(code: number, reason: string, heard: boolean): Outcome {
  if (code >= 4000 && code < 5000) {
    const problem = {
      code: reason || "unauthorized",
      message: "The gateway closed the connection.",
    };
    if (code >= 4500) return { kind: "refused", problem };
    if (reason) return outcomeOfProblem(problem, true);
  }
  return {
    kind: "lost",
    heard,
    problem: { code: "connection_lost", message: "The connection was lost." },
  };
}
