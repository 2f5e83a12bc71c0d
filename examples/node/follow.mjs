import { createClient } from "@runcast/client";

const backend = "http://127.0.0.1:8000";
const runcast = createClient({
  baseURL: "http://127.0.0.1:8080",
  token: async () => (await fetch(`${backend}/api/token`)).text(),
});

const { run } = await (await fetch(`${backend}/api/stories`, { method: "POST" })).json();
for await (const piece of runcast.stream(run, "llm").text()) process.stdout.write(piece);
runcast.close();
