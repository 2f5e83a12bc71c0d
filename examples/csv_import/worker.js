// The worker: imports the chunks of a file, some at a time, and sums up in the parent.

import { setTimeout as pause } from "node:timers/promises";
import { batch as batches, runs } from "@trigger.dev/sdk";
import { change, count } from "./gateway.js";

const WORKERS = 3;
const ROW_MS = 60; // a fake database, at its own speed

/** Carry out an import: all runs of its batch, and then itself. */
export async function carryOut(parent, batch) {
  await change(parent, { status: "EXECUTING" });
  const cancellation = new AbortController();
  watch(parent, cancellation).catch(console.error);
  try {
    const chunks = (await batches.retrieve(batch)).runs;
    const rejected = await importAll(chunks, cancellation.signal);
    const { metadata } = await runs.retrieve(parent);
    await change(parent, { status: "COMPLETED", output: { imported: metadata.imported, rejected } });
  } catch (error) {
    // Who cancels has ended all the runs already, perhaps before we hear of it.
    if (cancellation.signal.aborted || error.code === "illegal_transition") return;
    await change(parent, { status: "FAILED", error: { message: error.message } });
  }
}

/** Learn of a cancellation as anybody would: by following the run. Ends when the run does. */
async function watch(run, cancellation) {
  for await (const { isCancelled } of runs.subscribeToRun(run)) {
    if (isCancelled) cancellation.abort();
  }
}

/** Give the rows that were rejected, in their order. */
async function importAll(chunks, signal) {
  const waiting = [...chunks];
  const rejected = [];
  const work = async () => {
    while (waiting.length) rejected.push(...(await importChunk(waiting.shift(), signal)));
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  return rejected.sort((one, other) => one.row - other.row);
}

/** Import what can be; the run fails if any row was rejected, and says which. */
async function importChunk(run, signal) {
  signal.throwIfAborted();
  await change(run, { status: "EXECUTING" });
  const { payload } = await runs.retrieve(run);
  const rejected = [];
  for (const [at, row] of payload.rows.entries()) {
    await pause(ROW_MS, undefined, { signal });
    const reason = fault(row);
    if (reason) rejected.push({ row: payload.first + at, reason });
    await count(run, { done: 1 }, reason ? { rejected: 1 } : { imported: 1 });
  }
  const message = rejected.map(({ row, reason }) => `Row ${row}: ${reason}`).join("\n");
  await change(
    run,
    rejected.length ? { status: "FAILED", error: { message } } : { status: "COMPLETED" },
  );
  return rejected;
}

/** What is wrong with a row, if anything is. */
function fault({ name, email, amount }) {
  if (!name) return "there is no name.";
  if (!/^\S+@\S+\.\S+$/.test(email ?? "")) return `“${email ?? ""}” is no e-mail address.`;
  if (!/^\d+(\.\d+)?$/.test(amount ?? "")) return `“${amount ?? ""}” is no amount.`;
}
