// What a run spent its time with. Pure.

import type { Run } from "@runcast/client";
import type { Family } from "./format.js";

/** Times are Unix milliseconds; `open`: it lasts yet. */
export interface Span {
  readonly name: string;
  readonly family: Family;
  readonly from: number;
  readonly to: number;
  readonly open: boolean;
}

type Moments = Pick<
  Run,
  "status" | "createdAt" | "queuedAt" | "startedAt" | "finishedAt" | "expiredAt" | "delayedUntil"
>;

export function spansOf(run: Moments, now: number): Span[] {
  const created = Date.parse(run.createdAt);
  const started = at(run.startedAt);
  const over = at(run.finishedAt) ?? at(run.expiredAt);
  const spans: Span[] = [];
  const add = (name: string, family: Family, from: number, to: number | undefined) => {
    const end = Math.max(from, to ?? over ?? now);
    spans.push({
      name,
      family,
      from,
      to: end,
      open: to === undefined && over === undefined,
    });
  };
  let queued: number | undefined = created;
  if (run.delayedUntil) {
    queued = at(run.queuedAt) ?? started;
    add("Delayed", "off", created, queued);
  }
  if (queued !== undefined) add("Queued", "waiting", queued, started);
  if (started !== undefined) add(...execution(run, over), started, undefined);
  return spans;
}

function at(moment: string | undefined): number | undefined {
  return moment === undefined ? undefined : Date.parse(moment);
}

function execution({ status }: Moments, over: number | undefined): [string, Family] {
  if (over === undefined)
    return status === "WAITING" ? ["Waiting", "paused"] : ["Executing", "running"];
  if (status === "COMPLETED") return ["Executed", "good"];
  return ["Executed", status === "CANCELED" || status === "EXPIRED" ? "off" : "bad"];
}
