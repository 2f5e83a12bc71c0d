// Runs one check with one generation of the official clients, against the gateway that the
// environment names:
//
//   RUNCAST_URL=… RUNCAST_SECRET_KEY=… node run.mjs v4 'subscribeToRun follows a run to its end'
//
// The last line of standard output is the verdict, as JSON. Lines with "ask" before it want
// something of whoever started this: a line on standard input says that it is done.

import { readdir } from "node:fs/promises";
import { found } from "./lib/check.mjs";
import { loadClients } from "./lib/clients.mjs";
import { Stage } from "./lib/stage.mjs";

const PATIENCE_MS = 120_000;

const [generation, name] = process.argv.slice(2);

// A client that fails behind the back of its user has failed.
const stray = [];
process.on("unhandledRejection", (reason) => stray.push(reason));
process.on("uncaughtException", (error) => stray.push(error));

for (const file of await readdir(new URL("./checks/", import.meta.url))) {
  if (file.endsWith(".mjs")) await import(`./checks/${file}`);
}
const check = found.get(name);
if (!check || (check.only && check.only !== generation)) {
  console.error(`there is no check ${JSON.stringify(name)} for ${generation}`);
  process.exit(2);
}

let failure;
try {
  const stage = new Stage(generation, await loadClients(generation), stray);
  await within(PATIENCE_MS, check.body(stage).then(() => stage.close()));
} catch (error) {
  failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
}
const verdict = JSON.stringify({ generation, name, ok: failure === undefined, failure });
process.stdout.write(`${verdict}\n`, () => process.exit(failure === undefined ? 0 : 1));

function within(milliseconds, promise) {
  const late = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not over after ${milliseconds} ms`)), milliseconds).unref();
  });
  // Something has to keep the process alive while a check waits for what may never come.
  const alive = setInterval(() => {}, 1000);
  return Promise.race([promise, late]).finally(() => clearInterval(alive));
}
