// Every message of the gateway, from a WebSocket or an event stream, in one form.

import type { Problem } from "./errors.js";
import type { Run } from "./types.js";

/** What a subscription receives. All but `lost` come from the gateway. Plain data, so that tabs can pass it on. */
export type Frame =
  | { readonly type: "run"; readonly run: Run; readonly cursor?: string }
  | { readonly type: "gone"; readonly gone: Gone; readonly cursor?: string }
  | {
      readonly type: "parts";
      readonly offset: number;
      readonly parts: readonly unknown[];
      /** When each was stored, in Unix milliseconds. */
      readonly times: readonly number[];
    }
  | { readonly type: "up-to-date"; readonly cursor?: string; readonly offset?: number }
  | { readonly type: "cursor"; readonly cursor: string }
  | { readonly type: "reset"; readonly reset: Reset }
  | { readonly type: "end"; readonly end: { readonly reason: EndReason } }
  | { readonly type: "problem"; readonly problem: Problem }
  /** The connection is gone, and the subscription with it. */
  | { readonly type: "lost"; readonly problem?: Problem };

/** Whether nothing follows it. */
export function isLast({ type }: Frame): boolean {
  return type === "end" || type === "problem" || type === "lost";
}

export interface Gone {
  readonly id: string;
  readonly reason: "deleted" | "unmatched";
}

/** Why everything known had to be forgotten. */
export interface Reset {
  readonly reason: string;
  readonly message: string;
}

export type EndReason = "finished" | "deleted" | "closed" | "idle" | "unsubscribed";

/** What concerns the connection. */
export type ConnectionFrame =
  | { readonly type: "authenticated"; readonly expiresAt?: number }
  | { readonly type: "expired" }
  | { readonly type: "reconnect"; readonly reconnect: { readonly delayMs: number } }
  | { readonly type: "problem"; readonly problem: Problem }
  | { readonly type: "cursor"; readonly cursor: string }
  | { readonly type: "pong" };

export type Message =
  | { readonly id: string; readonly frame: Frame }
  | { readonly id?: undefined; readonly frame: ConnectionFrame };

const OF_SUBSCRIPTIONS = new Set(["run", "gone", "parts", "up-to-date", "reset", "end", "problem"]);
const OF_CONNECTIONS = new Set([
  "authenticated",
  "expired",
  "reconnect",
  "problem",
  "cursor",
  "pong",
]);

/**
 * Read one message of a WebSocket; undefined for kinds that a newer gateway may send.
 *
 * @throws SyntaxError if it is no JSON.
 */
export function decodeMessage(text: string): Message | undefined {
  const { id, ...frame } = JSON.parse(text) as { id?: string; type: string };
  if (id !== undefined) {
    return OF_SUBSCRIPTIONS.has(frame.type) ? { id, frame: frame as Frame } : undefined;
  }
  return OF_CONNECTIONS.has(frame.type) ? { frame: frame as ConnectionFrame } : undefined;
}
