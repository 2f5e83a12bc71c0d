import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { createClient } from "@runcast/client";

const { RUNCAST_URL: baseURL, RUNCAST_SECRET_KEY: key } = process.env;
const runcast = createClient({ baseURL, token: key });
const user = "user:42"; // whoever your sessions say it is

async function ask(method, path, body) {
  const isStream = body instanceof ReadableStream;
  const response = await fetch(baseURL + path, {
    method,
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    ...(body && { body: isStream ? body : JSON.stringify(body), duplex: "half" }),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${await response.text()}`);
  return response;
}

async function start() {
  const run = await runcast.trigger("story", { prompt: "Tell me a story." }, { tags: [user] });
  tell(run.id).catch(console.error); // a worker in another process would do the same
  return JSON.stringify({ run: run.id });
}

async function token() {
  const wanted = { scopes: [`read:tags:${user}`], expirationTime: "15m" };
  const response = await ask("POST", "/api/v1/auth/public-tokens", wanted);
  return (await response.json()).token;
}

async function tell(run) {
  await ask("PATCH", `/api/v1/runs/${run}`, { status: "EXECUTING" });
  await ask("POST", `/realtime/v1/streams/${run}/self/llm`, ReadableStream.from(model()));
  await ask("PATCH", `/api/v1/runs/${run}`, { status: "COMPLETED" });
}

async function* model() { // stands for the stream of your model; a line of JSON for each chunk
  const text = "Once upon a time a run told a story, word by word, to whoever listened.";
  for (const word of text.split(" ")) {
    await pause(100);
    yield new TextEncoder().encode(`${JSON.stringify(word + " ")}\n`);
  }
}

const routes = { "POST /api/stories": start, "GET /api/token": token };
const server = createServer(async (request, response) => {
  const answer = routes[`${request.method} ${request.url}`];
  if (!answer) return response.writeHead(404).end();
  try {
    response.end(await answer());
  } catch (error) {
    console.error(error);
    response.writeHead(502).end();
  }
});
server.listen(8000, () => console.log("http://127.0.0.1:8000"));
