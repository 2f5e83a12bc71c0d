// Values as people read them. Pure.

import type { Run, RunStatus } from "@runcast/client";

/** Seconds as "8s", "5m", "3h", "2d". */
export function age(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h`;
  return `${Math.floor(whole / 86_400)}d`;
}

export function duration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
}

/** A moment to the millisecond; with its day unless that is today. */
export function time(moment: string | number): string {
  const date = new Date(moment);
  const today = date.toDateString() === new Date().toDateString();
  const clock = date.toLocaleTimeString(undefined, { hourCycle: "h23" });
  const fraction = String(date.getMilliseconds()).padStart(3, "0");
  return `${today ? "" : `${date.toLocaleDateString()} `}${clock}.${fraction}`;
}

export function count(number: number, noun: string): string {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** Progress as 0 to 1, or undefined. Numbers up to 1 are fractions, above that percents. */
export function progress(run: Run): number | undefined {
  const value = (run.metadata as { progress?: unknown } | undefined)?.progress;
  if (typeof value !== "number" || !(value >= 0 && value <= 100)) return undefined;
  return value <= 1 ? value : value / 100;
}

export function clipped(text: string, limit: number): string {
  return text.length <= limit ? text : `${text.slice(0, limit)}…`;
}

/** A colour: what kind of status it is. */
export type Family = "waiting" | "paused" | "running" | "good" | "bad" | "off";

const STATUSES: Readonly<Record<RunStatus, readonly [Family, string]>> = {
  QUEUED: ["waiting", "Queued"],
  PENDING_VERSION: ["waiting", "Pending version"],
  DELAYED: ["waiting", "Delayed"],
  DEQUEUED: ["waiting", "Dequeued"],
  WAITING: ["paused", "Waiting"],
  EXECUTING: ["running", "Executing"],
  COMPLETED: ["good", "Completed"],
  CANCELED: ["off", "Canceled"],
  EXPIRED: ["off", "Expired"],
  FAILED: ["bad", "Failed"],
  CRASHED: ["bad", "Crashed"],
  SYSTEM_FAILURE: ["bad", "System failure"],
  TIMED_OUT: ["bad", "Timed out"],
};

export const STATUS_NAMES = Object.keys(STATUSES);

/** The family of a status and its words; one of a later version stands as it was sent. */
export function statusOf(name: string): readonly [Family, string] {
  return (STATUSES as Record<string, readonly [Family, string]>)[name] ?? ["off", name];
}
