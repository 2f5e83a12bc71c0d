// What is played in every runtime: a run is followed to its end, and its stream read.
//
// The first token is good for three seconds. The run goes on when the client asks for the second.

export async function play(createClient, { url, key, ...options }) {
  async function ask(method, path, body) {
    const response = await fetch(url + path, {
      method,
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text && JSON.parse(text);
  }

  const { id } = await ask("POST", "/api/v1/tasks/tell/trigger", { payload: "Tell me a story." });
  const write = (text) => ask("POST", `/realtime/v1/streams/${id}/self/llm`, text);
  await write("Once upon ");

  let tokens = 0;
  async function token() {
    tokens += 1;
    if (tokens === 2) {
      await write("a time.");
      await ask("PATCH", `/api/v1/runs/${id}`, { status: "COMPLETED" });
    }
    const expirationTime = Math.floor(Date.now() / 1000) + (tokens === 1 ? 3 : 600);
    const wanted = { scopes: [`read:runs:${id}`], expirationTime };
    return (await ask("POST", "/api/v1/auth/public-tokens", wanted)).token;
  }

  const client = createClient({ baseURL: url, token, ...options });
  const reading = (async () => {
    let text = "";
    for await (const piece of client.stream(id, "llm").text()) text += piece;
    return text;
  })();
  let status, transport;
  for await (const run of client.run(id)) {
    status = run.status;
    transport = client.connection.getSnapshot().transport ?? transport;
  }
  const text = await reading;
  client.close();
  return { status, text, tokens, transport };
}

/** Over each transport at once; gives what came of it as JSON. */
export async function playAll(createClient, given) {
  const transports = ["websocket", "sse"];
  const plays = transports.map((each) => play(createClient, { ...given, transports: [each] }));
  return JSON.stringify(await Promise.all(plays));
}
