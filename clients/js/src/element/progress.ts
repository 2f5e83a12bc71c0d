// What a run's progress element shows, from what is known of the run. Pure.

import type { RunSnapshot } from "../run-feed.js";

export interface Wishes {
  /** Where in the metadata the progress stands: `progress`, `import.done`. */
  readonly path: string;
  /** What counts as done; if not said, 1 for numbers up to 1, and 100 for others. */
  readonly max: number | undefined;
  /** Words in place of ours, by status. */
  readonly labels: Readonly<Record<string, string>>;
}

export interface View {
  /** The run's status; before it is known, and when it cannot be followed, that of the feed. */
  readonly status: string;
  readonly label: string;
  readonly task: string;
  /** From 0 to 1; undefined if it is not known how far the run is. */
  readonly fraction: number | undefined;
  readonly tone: "calm" | "good" | "bad";
  /** Whether more will come. */
  readonly isBusy: boolean;
  /** What went wrong, or is in the way. */
  readonly problem: string;
}

/** Where the status itself says it badly. */
const LABELS: Readonly<Record<string, string>> = {
  idle: "",
  connecting: "Connecting…",
  retrying: "Reconnecting…",
  ended: "Gone",
  failed: "Not available",
  PENDING_VERSION: "Waiting for a version",
  DEQUEUED: "Starting",
  EXECUTING: "Running",
};

const FINISHED =
  /^(COMPLETED|FAILED|CANCELED|CRASHED|SYSTEM_FAILURE|EXPIRED|TIMED_OUT|ended|failed)$/;

export function viewOf({ run, status: phase, error, problem }: RunSnapshot, wishes: Wishes): View {
  const status =
    phase === "failed" || !run ? (phase === "live" ? "connecting" : phase) : run.status;
  const isBusy = !FINISHED.test(status);
  return {
    status,
    label: wishes.labels[status] ?? LABELS[status] ?? inWords(status),
    task: run?.taskIdentifier ?? "",
    fraction: status === "COMPLETED" ? 1 : fractionOf(run?.metadata, wishes),
    tone: isBusy ? "calm" : status === "COMPLETED" ? "good" : "bad",
    isBusy,
    problem: error?.message ?? (run?.error?.message || problem?.message) ?? "",
  };
}

function inWords(status: string): string {
  return status.slice(0, 1) + status.slice(1).toLowerCase().replaceAll("_", " ");
}

function fractionOf(metadata: unknown, { path, max }: Wishes): number | undefined {
  let value = metadata;
  for (const name of path.split(".")) {
    value = (value as Record<string, unknown> | null | undefined)?.[name];
  }
  if (typeof value !== "number" || !Number.isFinite(value)) return undefined;
  const whole = max ?? (value > 1 ? 100 : 1);
  return whole > 0 ? Math.min(Math.max(value / whole, 0), 1) : undefined;
}
