// Values as people read them.

const MAX_TEXT = 200_000;

// Seconds as "8s", "5m", "3h", "2d".
export function age(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h`;
  return `${Math.floor(whole / 86_400)}d`;
}

export function duration(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
}

export function time(iso) {
  const date = new Date(iso);
  const today = date.toDateString() === new Date().toDateString();
  const clock = date.toLocaleTimeString(undefined, { hourCycle: "h23" });
  const fraction = String(date.getMilliseconds()).padStart(3, "0");
  return `${today ? "" : `${date.toLocaleDateString()} `}${clock}.${fraction}`;
}

// Progress as 0 to 1, or null. Numbers up to 1 are fractions, above that percents.
export function progress(run) {
  const value = run.metadata?.progress;
  if (typeof value !== "number" || !(value >= 0 && value <= 100)) return null;
  return value <= 1 ? value : value / 100;
}

// JSON for people; a text stands as it is.
export function pretty(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return clipped(text, MAX_TEXT);
}

// A text of the wire for people: as JSON where it is some.
export function prettyJson(text) {
  try {
    return pretty(JSON.parse(text));
  } catch {
    return pretty(text); // no JSON, or clipped
  }
}

export function count(number, noun) {
  return `${number.toLocaleString()} ${noun}${number === 1 ? "" : "s"}`;
}

export function clipped(text, limit) {
  if (text.length <= limit) return text;
  return `${text.slice(0, limit)}\n… ${text.length - limit} more characters`;
}

const STATUSES = {
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

// The family of a status (a colour) and its words; a status from a later version stands as sent.
export function status(name) {
  return STATUSES[name] ?? ["off", name];
}
