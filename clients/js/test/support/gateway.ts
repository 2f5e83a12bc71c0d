// A gateway as docs/protocol.md "WebSocket" describes it, small enough to be the model of properties.
//
// What it sends waits in each socket until `deliver` lets it through, so that a test decides what is
// lost when a connection is cut.

import type { Run } from "../../src/index.js";
import { aRun } from "./runs.js";

type Json = Record<string, unknown>;

interface Follower {
  readonly id: string;
  readonly runs?: { run?: string };
  readonly stream?: string;
  readonly socket: ModelSocket;
  next: number; // of a stream
  isLive: boolean;
}

export class ModelGateway {
  readonly sockets = new Set<ModelSocket>();
  readonly runs = new Map<string, { run: Run; at: number }>();
  readonly streams = new Map<string, { parts: unknown[]; isClosed: boolean }>();
  readonly gone = new Map<string, number>();
  /** Every message of every client, oldest first. */
  readonly received: Json[] = [];
  /** Tokens that are accepted, with the end of their time. */
  readonly tokens = new Map<string, number | undefined>([["good", undefined]]);
  readonly expired = new Set<string>();
  connections = 0;
  isUp = true;
  followers = new Set<Follower>();
  #at = 0;
  #keptSince = 0;

  /** The class to give to the client. */
  get WebSocket(): typeof WebSocket {
    // eslint-disable-next-line @typescript-eslint/no-this-alias
    const gateway = this;
    return class extends ModelSocket {
      constructor() {
        super(gateway);
      }
    } as unknown as typeof WebSocket;
  }

  // -- what happens to runs and streams -----------------------------------------------------------

  change(id: string, fields: Partial<Run> = {}): void {
    this.#at += 1;
    const run = aRun({ id, ...fields, revision: this.#at });
    this.runs.set(id, { run, at: this.#at });
    this.gone.delete(id);
    for (const follower of this.followers) this.#tell(follower, id);
  }

  delete(id: string): void {
    if (!this.runs.delete(id)) return;
    this.#at += 1;
    this.gone.set(id, this.#at);
    for (const follower of this.followers) this.#tell(follower, id);
  }

  append(key: string, ...parts: unknown[]): void {
    this.#stream(key).parts.push(...parts);
    for (const follower of this.followers) this.#sendParts(follower);
  }

  end(key: string): void {
    this.#stream(key).isClosed = true;
    for (const follower of this.followers) this.#sendParts(follower);
  }

  /** Cursors from before now cannot be continued any more. */
  forgetHistory(): void {
    this.#at += 1;
    this.#keptSince = this.#at;
  }

  // -- what happens to connections ----------------------------------------------------------------

  /** Let messages through, all if no number is said. */
  deliver(count = Infinity): void {
    for (const socket of this.sockets) socket.flush(count);
  }

  /** Break all connections; what was not delivered is lost. */
  cut(code = 1006, reason = ""): void {
    for (const socket of [...this.sockets]) socket.end(code, reason);
  }

  say(message: Json): void {
    for (const socket of this.sockets) socket.queue.push(message);
  }

  keepAlive(): void {
    this.say({ type: "cursor", cursor: String(this.#at) });
  }

  // -- commands -----------------------------------------------------------------------------------

  obey(socket: ModelSocket, command: Json): void {
    this.received.push(command);
    const id = command["id"] as string;
    switch (command["type"]) {
      case "authenticate":
        this.#authenticate(socket, command["token"] as string);
        break;
      case "ping":
        socket.queue.push({ type: "pong" });
        break;
      case "unsubscribe":
        for (const follower of this.followers) {
          if (follower.socket === socket && follower.id === id) this.followers.delete(follower);
        }
        socket.queue.push({ type: "end", id, end: { reason: "unsubscribed" } });
        break;
      case "subscribe":
        // Commands that were sent behind a token that is refused find nobody.
        if (socket.isAuthenticated) this.#subscribe(socket, id, command);
    }
  }

  #authenticate(socket: ModelSocket, token: string): void {
    if (this.tokens.has(token)) {
      socket.isAuthenticated = true;
      const expiresAt = this.tokens.get(token);
      socket.queue.push({ type: "authenticated", ...(expiresAt && { expiresAt }) });
      return;
    }
    const code = this.expired.has(token) ? "expired_token" : "invalid_token";
    socket.queue.push({ type: "problem", problem: { code, message: "no" } });
    if (socket.isAuthenticated) return;
    socket.queue.push({ close: code === "expired_token" ? 4001 : 4501, reason: code });
  }

  #subscribe(socket: ModelSocket, id: string, command: Json): void {
    const stream = (command["stream"] as { key: string } | undefined)?.key;
    if (stream !== undefined) {
      const { parts } = this.#stream(stream);
      const from = command["from"];
      const next = from === "latest" ? parts.length : from === "start" ? 0 : (from as number);
      const follower = { id, stream, socket, next, isLive: true };
      this.followers.add(follower);
      this.#sendParts(follower);
      if (this.followers.has(follower)) {
        socket.queue.push({ type: "up-to-date", id, offset: parts.length });
      }
      return;
    }
    const runs = command["runs"] as { run?: string };
    const follower = { id, runs, socket, next: 0, isLive: true };
    if (runs.run !== undefined && !this.runs.has(runs.run)) {
      socket.queue.push({ type: "problem", id, problem: { code: "not_found", message: "no" } });
      return;
    }
    let since = command["cursor"] === undefined ? -1 : Number(command["cursor"]);
    if (since >= 0 && since < this.#keptSince) {
      socket.queue.push({ type: "reset", id, reset: { reason: "too_old", message: "m" } });
      since = -1;
    }
    for (const { run, at } of this.runs.values()) {
      if (at > since && matches(runs, run.id)) socket.queue.push({ type: "run", id, run });
    }
    for (const [gone, at] of this.gone) {
      if (since >= 0 && at > since && matches(runs, gone)) {
        socket.queue.push({ type: "gone", id, gone: { id: gone, reason: "deleted" } });
      }
    }
    this.followers.add(follower);
    socket.queue.push({ type: "up-to-date", id, cursor: String(this.#at) });
  }

  #tell({ id, runs, socket }: Follower, runId: string): void {
    if (!runs || !matches(runs, runId)) return;
    const cursor = String(this.#at);
    const known = this.runs.get(runId);
    socket.queue.push(
      known
        ? { type: "run", id, cursor, run: known.run }
        : { type: "gone", id, cursor, gone: { id: runId, reason: "deleted" } },
    );
  }

  #sendParts(follower: Follower): void {
    const { id, stream, socket } = follower;
    if (stream === undefined) return;
    const { parts, isClosed } = this.#stream(stream);
    const fresh = parts.slice(follower.next);
    if (fresh.length > 0) {
      const [offset, times] = [follower.next, fresh.map((_, n) => 1000 + follower.next + n)];
      socket.queue.push({ type: "parts", id, cursor: "c", offset, parts: fresh, times });
    }
    follower.next = parts.length;
    if (!isClosed) return;
    socket.queue.push({ type: "end", id, end: { reason: "closed" } });
    this.followers.delete(follower);
  }

  #stream(key: string) {
    const known = this.streams.get(key) ?? { parts: [], isClosed: false };
    this.streams.set(key, known);
    return known;
  }
}

function matches(runs: { run?: string }, id: string): boolean {
  return runs.run === undefined || runs.run === id;
}

/** The client's end of a connection to the model. It opens, and is closed, when timers run. */
class ModelSocket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly queue: Json[] = [];
  isAuthenticated = false;
  #isClosed = false;
  readonly #gateway: ModelGateway;

  constructor(gateway: ModelGateway) {
    this.#gateway = gateway;
    gateway.connections += 1;
    setTimeout(() => {
      if (this.#isClosed) return;
      if (!gateway.isUp) {
        this.end(1006, "");
        return;
      }
      gateway.sockets.add(this);
      this.onopen?.();
    }, 0);
  }

  send(text: string): void {
    if (this.#gateway.sockets.has(this)) {
      this.#gateway.obey(this, JSON.parse(text) as Json);
    }
  }

  flush(count: number): void {
    for (let n = 0; n < count; n++) {
      const message = this.queue.shift();
      if (message === undefined) return;
      if ("close" in message) this.end(message["close"] as number, message["reason"] as string);
      else this.onmessage?.({ data: JSON.stringify(message) });
    }
  }

  end(code: number, reason: string): void {
    this.close();
    this.onclose?.({ code, reason });
  }

  close(): void {
    this.#isClosed = true;
    this.#gateway.sockets.delete(this);
    for (const follower of this.#gateway.followers) {
      if (follower.socket === this) this.#gateway.followers.delete(follower);
    }
  }
}
