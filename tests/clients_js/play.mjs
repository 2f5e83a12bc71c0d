// Plays one scene with one transport:
//
//   node play.mjs websocket 'a run is followed …' http://127.0.0.1:8080 tr_dev_…
//
// The last line of standard output is the verdict, as JSON. Lines with "ask" before it want
// something of whoever started this: a line on standard input says that it is done.

import { scenes } from "./scenes.mjs";
import { Stage } from "./stage.mjs";

const [transport, name, url, key] = process.argv.slice(2);
const stray = [];
process.on("unhandledRejection", (reason) => stray.push(reason));
process.on("uncaughtException", (error) => stray.push(error));

let failure;
const stage = new Stage(transport, url, key);
// Something has to keep the process alive while a scene waits for what may never come.
const alive = setInterval(() => {}, 1000);
try {
  await scenes[name](stage);
  stage.close();
  await new Promise((resolve) => setImmediate(resolve));
  if (stray.length) throw stray[0];
} catch (error) {
  failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
}
clearInterval(alive);
process.stdout.write(`${JSON.stringify({ ok: failure === undefined, failure })}\n`, () =>
  process.exit(failure === undefined ? 0 : 1),
);
