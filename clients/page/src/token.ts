// What a token says of itself, unverified. Pure.

import type { View } from "./view.js";

export interface Claims {
  readonly sub?: string;
  readonly scopes?: readonly unknown[];
  readonly realtime?: unknown;
  readonly exp?: number;
}

/** Claims of a public access token; {} for a secret key, which may see everything. */
export function claimsOf(token: string): Claims {
  try {
    const part = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (character) => character.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims === "object" && claims !== null ? claims : {};
  } catch {
    return {};
  }
}

/** Whether what is followed may go on under the other token: both show the same runs. */
export function showTheSame(one: string, other: string): boolean {
  if (claimsOf(one).sub === undefined) return one === other;
  const shown = ({ sub, scopes, realtime }: Claims) => JSON.stringify([sub, scopes, realtime]);
  return shown(claimsOf(one)) === shown(claimsOf(other));
}

export interface StartingPoint {
  /** Whether the token opens every run. */
  readonly everything: boolean;
  /** What to show first where it does not. */
  readonly view: Partial<View>;
}

export function startingPoint(token: string): StartingPoint {
  const { scopes } = claimsOf(token);
  if (!Array.isArray(scopes)) return { everything: true, view: {} };
  const texts = scopes.filter((scope) => typeof scope === "string");
  if (texts.some((scope) => WHOLE.has(scope))) return { everything: true, view: {} };
  const first = (start: string) =>
    texts.find((scope) => scope.startsWith(start))?.slice(start.length) ?? "";
  const run = first("read:runs:");
  for (const [name, start] of Object.entries(LISTS)) {
    const id = first(start);
    if (id) return { everything: false, view: { run, [name]: id } };
  }
  return { everything: false, view: { run } };
}

const LISTS = { batch: "read:batch:", tags: "read:tags:", task: "read:tasks:" };
const WHOLE = new Set(["admin", "read:all", "read:runs", "*:all", "*:runs"]);
