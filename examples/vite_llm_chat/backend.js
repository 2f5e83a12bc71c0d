// The backend: a run for each message, and a token with which the browser reads just this run.

import { tasks } from "@trigger.dev/sdk";
import { carryOut } from "./worker.js";

const MAX_BYTES = 64 * 1024;

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
      if (`${request.method} ${request.url}` !== "POST /messages") {
        return answer(response, 404, { error: "There is only POST /api/messages." });
      }
      const messages = readMessages(await text(request));
      if (!messages) return answer(response, 400, { error: "Send one to a hundred messages." });
      answer(response, 200, await ask(messages));
    } catch (error) {
      console.error(error);
      answer(response, 502, { error: "The gateway cannot be reached, or refuses the key." });
    }
  };
}

/** Trigger a run for the last message; the earlier ones are what the model remembers. */
async function ask(messages) {
  const run = await tasks.trigger("chat", { messages }, { tags: ["chat"] });
  carryOut(run.id, messages).catch(console.error); // a worker of its own would do just the same
  return { run: run.id, token: run.publicAccessToken, baseURL: process.env.TRIGGER_API_URL };
}

/** The messages of a body, or nothing if it holds none. */
function readMessages(body) {
  const isMessage = (message) =>
    ["user", "assistant"].includes(message?.role) && typeof message.content === "string";
  try {
    const { messages } = JSON.parse(body);
    const fits = messages.length >= 1 && messages.length <= 100 && messages.every(isMessage);
    return fits ? messages.map(({ role, content }) => ({ role, content })) : undefined;
  } catch {
    return undefined;
  }
}

async function text(request) {
  let body = "";
  for await (const piece of request.setEncoding("utf8")) {
    body += piece;
    if (body.length > MAX_BYTES) return "";
  }
  return body;
}

function answer(response, status, body) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}
