// What a run spent its time with. Pure.

// Spans in order: {name, family, from, to, open}, times in milliseconds; `open`: it lasts yet.
export function spansOf(run, now) {
  const at = (field) => (run[field] ? Date.parse(run[field]) : null);
  const created = at("createdAt");
  const started = at("startedAt");
  const over = at("finishedAt") ?? at("expiredAt");
  const spans = [];
  const add = (name, family, from, to) => {
    const end = Math.max(from, to ?? over ?? now);
    spans.push({ name, family, from, to: end, open: to === null && over === null });
  };
  let queued = created;
  if (run.delayedUntil) {
    queued = at("queuedAt") ?? started;
    add("Delayed", "off", created, queued);
  }
  if (queued !== null) add("Queued", "waiting", queued, started);
  if (started !== null) add(...execution(run, over), started, null);
  return spans;
}

function execution(run, over) {
  if (over === null) return run.status === "WAITING" ? ["Waiting", "paused"] : ["Executing", "running"];
  if (run.status === "COMPLETED") return ["Executed", "good"];
  return ["Executed", run.status === "CANCELED" || run.status === "EXPIRED" ? "off" : "bad"];
}
