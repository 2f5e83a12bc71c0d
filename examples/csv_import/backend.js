// The backend: takes a file, makes a run for the import and a batch of runs for its chunks, and
// hands out a token with which the browser follows these and nothing else.

import { auth, runs, tasks } from "@trigger.dev/sdk";
import { readCsv } from "./csv.js";
import { makeBatch } from "./gateway.js";
import { carryOut } from "./worker.js";

const MAX_BYTES = 1024 * 1024;
const CHUNK_ROWS = 10;
const MAX_CHUNKS = 100;

// The official SDK finds gateway and key here; unset, it would ask Trigger.dev's cloud.
process.env.TRIGGER_API_URL ??= "http://127.0.0.1:8080";

/** Give the handler of `/api`, as Vite, Connect, Express or `node:http` call it. */
export function backend() {
  if (!process.env.TRIGGER_SECRET_KEY) {
    console.error("Set TRIGGER_SECRET_KEY to the secret key that `runcast dev` printed.");
    process.exit(1);
  }
  return async (request, response) => {
    try {
      const [path, id] = request.url.slice(1).split("/");
      if (request.method === "POST" && path === "imports" && !id) {
        answer(response, 200, await startImport(rowsOf(await text(request))));
      } else if (request.method === "DELETE" && path === "imports" && id) {
        answer(response, 200, await runs.cancel(id)); // and with it the chunks, its children
      } else {
        throw new Refusal(404, "There are POST /api/imports and DELETE /api/imports/{run}.");
      }
    } catch (error) {
      if (error instanceof Refusal) return answer(response, error.status, { error: error.message });
      console.error(error);
      answer(response, 502, { error: "The gateway cannot be reached, or refuses the request." });
    }
  };
}

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function startImport(rows) {
  const size = Math.max(CHUNK_ROWS, Math.ceil(rows.length / MAX_CHUNKS));
  const metadata = { rows: rows.length, imported: 0, rejected: 0 };
  const parent = await tasks.trigger("import-csv", undefined, { metadata });
  const batch = await makeBatch("import-chunk", parent.id, chunksOf(rows, size));
  // What is in the rows is nobody's business in the browser.
  const token = await auth.createPublicToken({
    scopes: { read: { runs: [parent.id], batch: [batch] } },
    realtime: { skipColumns: ["payload"] },
    expirationTime: "1h",
  });
  carryOut(parent.id, batch).catch(console.error); // workers of their own would do just the same
  return { run: parent.id, batch, token, baseURL: process.env.TRIGGER_API_URL };
}

function* chunksOf(rows, size) {
  for (let at = 0; at < rows.length; at += size) {
    const own = rows.slice(at, at + size);
    yield {
      payload: { first: at + 1, rows: own },
      metadata: { first: at + 1, rows: own.length, done: 0 },
    };
  }
}

function rowsOf(csv) {
  let rows;
  try {
    rows = readCsv(csv);
  } catch (error) {
    throw new Refusal(400, error.message);
  }
  if (!rows.length) throw new Refusal(400, "The file has no rows below its first line.");
  return rows;
}

async function text(request) {
  let body = "";
  for await (const piece of request.setEncoding("utf8")) {
    body += piece;
    if (body.length > MAX_BYTES) throw new Refusal(413, "The file is larger than 1 MiB.");
  }
  return body;
}

function answer(response, status, body) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}
