// The seam between subscriptions and whatever brings them their frames.

import type { Problem } from "./errors.js";
import type { Frame } from "./frame.js";
import type { Request } from "./request.js";
import type { Store } from "./store.js";

export interface Link {
  /**
   * Ask for something. `receive` is called later, never from within, and for the last time with
   * `end`, `problem` or `lost`; whoever wants to go on asks again, and is served when it can be.
   *
   * Gives a function that tells the gateway to stop; nothing is received after it.
   */
  open(request: Request, receive: (frame: Frame) => void): () => void;
  readonly connection: Store<ConnectionState>;
  /** Ask the gateway whether it is there; `latencyMs` tells how long the answer took. Not where tabs share one. */
  ping?(): void;
  /** Let go of the connection for good. */
  close(): void;
}

export type TransportKind = "websocket" | "sse";

export interface ConnectionState {
  /**
   * `idle`: nothing is asked for. `waiting`: for the next attempt. `refused`: the gateway does not
   * accept the token; the next request is the next attempt.
   */
  readonly status: "idle" | "connecting" | "open" | "waiting" | "refused";
  /** Who has it, if it is not this tab: a worker of all tabs, or another tab. */
  readonly via?: "worker" | "tab";
  readonly transport?: TransportKind;
  /** Connections since the first that were made. */
  readonly reconnects: number;
  /** How long the gateway took to answer the last ping, or to begin the last event stream. */
  readonly latencyMs?: number;
  /** When the next attempt is made, in Unix milliseconds. */
  readonly retryAt?: number | undefined;
  /** What ended the last connection, or hinders the next one. */
  readonly problem?: Problem | undefined;
}
