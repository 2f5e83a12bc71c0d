// What clients fall over, or go on over for ever, and no other check meets.

import { request as rawRequest } from "node:http";
import { check } from "../lib/check.mjs";

const TOO_MANY_TAGS = [..."abcdefghijk"];
const iterate = (subscription) => subscription[Symbol.asyncIterator]();

/** The answer to a request, whatever its status, and its JSON. */
async function ask(t, method, path, { token = t.key, headers = {}, body } = {}) {
  const answer = await fetch(new URL(path, t.url), {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, json: text ? JSON.parse(text) : null };
}

check.v4("refusals can be read by a page of another origin", async (t) => {
  const id = await t.trigger();
  const foreign = await t.token({ read: { runs: ["run_other"] } });
  const refusals = [
    [401, "GET", `/realtime/v1/runs/${id}?offset=-1`, { token: "none" }],
    [403, "GET", `/realtime/v1/runs/${id}?offset=-1`, { token: foreign }],
    [404, "GET", "/realtime/v1/runs/run_none?offset=-1", {}],
    [403, "GET", `/realtime/v1/streams/${id}/llm`, { token: foreign }],
    [404, "GET", "/api/v3/runs/run_none", {}],
    [400, "POST", "/api/v1/tasks/hello/trigger", { body: { options: { tags: 1 } } }],
    [422, "POST", "/api/v1/tasks/hello/trigger", { body: { options: { tags: TOO_MANY_TAGS } } }],
    // Newer routes that clients try before they fall back.
    [404, "GET", "/api/v1/nothing/here", {}],
    [404, "POST", "/api/v1/sessions", { body: {} }],
    [404, "PUT", "/realtime/v1/sessions/s/in", {}],
  ];
  for (const [status, method, path, options] of refusals) {
    const answer = await ask(t, method, path, options);
    t.assert.equal(answer.status, status, `${method} ${path}`);
    t.assert.equal(answer.headers.get("access-control-allow-origin"), "*");
    t.assert.ok(answer.headers.get("access-control-expose-headers"));
    t.assert.equal(typeof answer.json.error, "string");
    if (status === 404) t.assert.notEqual(answer.headers.get("x-should-retry"), "true");
    const asked = "authorization, content-type, trigger-version, x-trigger-anything-new";
    const preflight = await fetch(new URL(path, t.url), {
      method: "OPTIONS",
      headers: {
        origin: "https://app.example",
        "access-control-request-method": method,
        "access-control-request-headers": asked,
      },
    });
    t.assert.ok(preflight.ok, `OPTIONS ${path}: ${preflight.status}`);
    t.assert.equal(preflight.headers.get("access-control-allow-origin"), "*");
    const allowed = preflight.headers.get("access-control-allow-headers").toLowerCase();
    for (const name of asked.split(", ")) t.assert.ok(allowed.includes(name), allowed);
  }
});

check("what cannot succeed is asked for once", async (t) => {
  const requests = t.watchRequests("/api/");
  await t.fails(404, () => t.sdk.runs.retrieve("run_none"));
  const metadata = { large: "x".repeat(300_000) };
  await t.fails(413, () => t.sdk.tasks.trigger("hello", {}, { metadata }));
  const token = await t.sdk.auth.createTriggerPublicToken("hello");
  const other = await t.sdk.auth.createTriggerPublicToken("other");
  t.assert.deepEqual(requests.splice(0).filter((status) => status !== 200), [404, 413]);
  await t.as(other, () => t.fails(403, () => t.sdk.tasks.trigger("hello", {})));
  // What was refused did not spend the token.
  const tags = TOO_MANY_TAGS;
  await t.as(token, () => t.fails(422, () => t.sdk.tasks.trigger("hello", {}, { tags })));
  await t.as(token, () => t.sdk.tasks.trigger("hello", {}));
  await t.as(token, () => t.fails(422, () => t.sdk.tasks.trigger("hello", {})));
  t.assert.deepEqual(requests, [403, 422, 200, 422]);
});

check.v4("answers hold no null where clients know none", async (t) => {
  const id = await t.trigger("hello", { tags: ["a"] });
  const batch = await t.request("POST", "/api/v1/tasks/batch", { items: [{ task: "one" }] });
  const wait = await t.sdk.wait.createToken({});
  const nulls = (value, path) => {
    if (value === null) return [path];
    if (typeof value !== "object") return [];
    return Object.entries(value).flatMap(([name, part]) => nulls(part, `${path}.${name}`));
  };
  for (const path of [
    `/api/v3/runs/${id}`,
    "/api/v1/runs",
    `/api/v2/batches/${batch.id}`,
    `/api/v1/batches/${batch.id}`,
    `/api/v1/waitpoints/tokens/${wait.id}`,
    "/api/v1/waitpoints/tokens",
    `/api/v1/runs/${id}/metadata`,
  ]) {
    const found = nulls(await t.request("GET", path), path);
    t.assert.deepEqual(found.filter((name) => !/\.(payload|output)$/.test(name)), []);
  }
});

check.v4("tokens are handed out in headers that a page can read", async (t) => {
  t.assert.doesNotMatch(t.key, /^tr_(dev|stg|prod|preview)_sk_[0-9a-zA-Z]{24}$/);
  const again = { "x-trigger-request-idempotency-key": crypto.randomUUID() };
  const items = [{ task: "one" }];
  for (const [path, body, headers] of [
    ["/api/v1/tasks/hello/trigger", {}, again],
    ["/api/v1/tasks/hello/trigger", {}, again],
    ["/api/v1/tasks/batch", { items }],
    ["/api/v2/tasks/batch", { items }],
    ["/api/v3/batches", { runCount: 1 }],
    ["/api/v1/waitpoints/tokens", {}],
  ]) {
    const answer = await ask(t, "POST", path, { body, headers });
    t.assert.ok(answer.status < 300, `${path}: ${answer.status}`);
    const exposed = answer.headers.get("access-control-expose-headers").toLowerCase();
    for (const name of ["x-trigger-jwt", "x-trigger-jwt-claims"]) {
      t.assert.ok(answer.headers.get(name), `${name} of ${path}`);
      t.assert.ok(exposed.includes(name), exposed);
    }
    t.assert.equal(JSON.parse(answer.headers.get("x-trigger-jwt-claims")).pub, true);
  }
});

check("one of several tags is enough in a list", async (t) => {
  const ids = [];
  for (const tags of [["a"], ["b"], ["c"]]) ids.unshift(await t.trigger("hello", { tags }));
  const listed = [];
  for await (const run of t.sdk.runs.list({ tag: ["a", "b"], limit: 1 })) listed.push(run.id);
  t.assert.deepEqual(listed, ids.slice(1));
});

check("runs.cancel ends what follows the run", async (t) => {
  const id = await t.trigger();
  const runs = iterate(t.sdk.runs.subscribeToRun(id));
  await t.until(runs, () => true);
  await t.sdk.runs.cancel(id);
  const last = (await t.until(runs, (run) => run.finishedAt)).at(-1);
  t.assert.equal(last.status, "CANCELED");
  t.assert.equal((await t.sdk.runs.cancel(id)).id, id);
});

check("batch.retrieve has statuses that the client knows", async (t) => {
  const batch = await t.sdk.batch.trigger([{ id: "one", payload: 1 }, { id: "two", payload: 2 }]);
  const begun = await t.sdk.batch.retrieve(batch.batchId);
  t.assert.ok(["PENDING", "PROCESSING"].includes(begun.status), begun.status);
  t.assert.equal(begun.runCount, 2);
  const { runs } = await t.request("GET", `/api/v2/batches/${batch.batchId}`);
  for (const id of runs) await t.finish(id);
  t.assert.equal((await t.sdk.batch.retrieve(batch.batchId)).status, "COMPLETED");
});

check("a stream that is announced but not there disturbs nobody", async (t) => {
  const id = await t.trigger();
  await t.setMetadata(id, { $$streams: ["nowhere", "llm"] });
  const events = iterate(t.sdk.runs.subscribeToRun(id).withStreams());
  await t.until(events, (event) => event.type === "run");
  await t.stream(id, "llm", ["here"]);
  await t.until(events, (event) => event.type === "llm" && event.chunk === "here");
  await t.setMetadata(id, { $$streams: ["nowhere", "llm"], n: 1 });
  await t.until(events, (event) => event.type === "run" && event.run.metadata.n === 1);
});

check.v4("a writer is heard at once, and answered when it has ended", async (t) => {
  const id = await t.trigger();
  await t.work(id, { status: "EXECUTING" });
  const path = `/realtime/v1/streams/${id}/self/llm`;
  const headers = { authorization: `Bearer ${t.key}`, "x-client-id": "w1" };
  const writer = rawRequest(new URL(path, t.url), { method: "POST", headers });
  const answered = new Promise((resolve, reject) => {
    writer.once("response", (answer) => answer.resume().once("end", () => resolve(answer)));
    writer.once("error", reject);
  });
  let isAnswered = false;
  answered.then(() => (isAnswered = true));
  const parts = iterate(await t.sdk.streams.read(id, "llm"));
  // Three lines and a half in one write: chunks are lines, not writes.
  writer.write('1\n2\n3\n"fo');
  await t.until(parts, (part) => part === 3);
  t.assert.equal(isAnswered, false);
  const probe = await fetch(new URL(path, t.url), { method: "HEAD", headers });
  t.assert.equal(probe.headers.get("x-last-chunk-index"), "2");
  writer.end('ur"');
  t.assert.equal((await t.soon(answered, "the answer")).statusCode, 200);
  await t.until(parts, (part) => part === "four");
  // It resumes with lines that are there already.
  const again = { "x-client-id": "w1", "x-resume-from-chunk": "2" };
  await t.request("POST", path, '3\n"four"\n5\n', { headers: again });
  const rest = await t.until(parts, (part) => part === 5);
  t.assert.deepEqual(rest, [5]);
});

check("one who reads slowly gets everything, and keeps nobody waiting", async (t) => {
  const id = await t.trigger();
  await t.work(id, { status: "EXECUTING" });
  await t.request("PUT", `/realtime/v1/streams/${id}/self/llm`);
  const headers = {
    authorization: `Bearer ${t.key}`,
    accept: "text/event-stream",
    "trigger-version": "3.3.17", // one part an event
  };
  const url = new URL(`/realtime/v1/streams/${id}/llm`, t.url);
  const slow = await new Promise((resolve, reject) => {
    rawRequest(url, { headers }).once("response", resolve).once("error", reject).end();
  });
  // Its socket takes in what the kernel holds, and no more; this is a multiple of that.
  const text = "x".repeat(200_000);
  const parts = Array.from({ length: 100 }, (_, n) => ({ n, text }));
  const events = iterate(t.sdk.runs.subscribeToRun(id).withStreams());
  await t.until(events, (event) => event.type === "run");
  const fast = (async () => {
    const got = [];
    await t.until(events, (event) => {
      if (event.type === "llm") got.push(event.chunk.n);
      return got.length === parts.length;
    });
    return got;
  })();
  for (let at = 0; at < parts.length; at += 10) await t.stream(id, "llm", parts.slice(at, at + 10));
  t.assert.deepEqual(await fast, parts.map(({ n }) => n));
  await t.finish(id);
  let received = "";
  for await (const piece of slow.setEncoding("utf8")) received += piece;
  const numbers = [...received.matchAll(/^data: \{"n":(\d+),"text":"(x+)"\}$/gm)];
  t.assert.deepEqual(numbers.map(([, n]) => Number(n)), parts.map(({ n }) => n));
  t.assert.ok(numbers.every(([, , got]) => got === text));
});

check.v4("a handle that was refused never comes back", async (t) => {
  const id = await t.trigger();
  const path = `/realtime/v1/runs/${id}`;
  const handles = new Set(["gone", "gone-next"]);
  for (const handle of [...handles]) {
    const refused = await ask(t, "GET", `${path}?offset=7_7&handle=${handle}&live=true&cursor=`);
    t.assert.equal(refused.status, 409);
    t.assert.deepEqual(refused.json, [{ headers: { control: "must-refetch" } }]);
    const offered = refused.headers.get("electric-handle");
    t.assert.ok(offered && !handles.has(offered));
    // The client begins anew with what it was offered, or with a name that it makes up.
    for (const taken of [offered, `${handle}-next`]) {
      const query = `offset=-1&handle=${taken}&expired_handle=${handle}&log=full`;
      const answer = await ask(t, "GET", `${path}?${query}`);
      t.assert.equal(answer.status, 200);
      t.assert.equal(answer.json.at(-1).headers.control, "up-to-date");
      t.assert.ok(!handles.has(answer.headers.get("electric-handle")));
    }
  }
});
