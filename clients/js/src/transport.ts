// The seam between the link and one connection to a gateway.

import type { Problem } from "./errors.js";
import type { Frame } from "./frame.js";
import type { Request } from "./request.js";

/** How a connection ended. */
export type Outcome =
  /** `heard`: the gateway had said something over it. */
  | { readonly kind: "lost"; readonly heard: boolean; readonly problem: Problem }
  | { readonly kind: "expired" }
  | { readonly kind: "reconnect"; readonly delayMs: number }
  | { readonly kind: "refused"; readonly problem: Problem };

export interface TransportEvents {
  frame(id: string, frame: Frame): void;
  /** The token is accepted, until `expiresAt` in Unix seconds if the transport knows. */
  ready(expiresAt: number | undefined): void;
  /** The gateway took so long to answer. */
  answered(latencyMs: number): void;
  /** A newer token is not; the one before goes on until its end. */
  tokenRefused(): void;
  /** It is over; nothing follows. */
  closed(outcome: Outcome): void;
}

export interface Transport {
  subscribe(id: string, request: Request): void;
  unsubscribe(id: string): void;
  /** Go on under a newer token. */
  authenticate(token: string): void;
  /** Measure how long an answer takes, where that can be done. */
  ping(): void;
  /** There is reason for doubt: find out whether the other side is still there. */
  doubt(): void;
  /** End it without a word. */
  close(): void;
}

export interface Address {
  readonly baseURL: string;
  readonly token: string;
}
