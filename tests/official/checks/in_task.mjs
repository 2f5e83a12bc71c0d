// What the code of a task calls about its own run: metadata, tags, streams, children.

import { check } from "../lib/check.mjs";
import { attendToWaits, enterTask } from "../lib/task.mjs";

async function started(t, options) {
  const id = await t.trigger("child", options);
  await t.work(id, { status: "EXECUTING" });
  return id;
}

const metadataOf = async (t, run) =>
  (await t.request("GET", `/api/v1/runs/${run}/metadata`)).metadata;

check("a task changes its metadata and tags, and the metadata above it", async (t) => {
  const parent = await started(t);
  const run = await started(t, { parentRunId: parent, tags: ["a"] });
  const metadata = await enterTask(t, run, { parent });
  metadata.parent.increment("done", 2);
  metadata.root.set("by", run);
  metadata.set("step", 1).increment("count", 3).decrement("count", 1);
  metadata.append("log", "a").append("log", "b").remove("log", "a").set("gone", 1).del("gone");
  await metadata.flush();
  t.assert.deepEqual(await metadataOf(t, run), { step: 1, count: 2, log: ["b"] });
  t.assert.deepEqual(await metadataOf(t, parent), { done: 2, by: run });
  await t.setMetadata(run, { step: 2 });
  await metadata.refresh();
  t.assert.deepEqual(metadata.current(), { step: 2 });
  t.assert.equal(metadata.get("step"), 2);
  metadata.replace({ only: true });
  await metadata.flush();
  t.assert.deepEqual(await metadataOf(t, run), { only: true });

  await t.sdk.tags.add(["b", "c"]);
  t.assert.deepEqual([...(await t.sdk.runs.retrieve(run)).tags].sort(), ["a", "b", "c"]);
});

check("metadata.stream of a task is read by those who follow the run", async (t) => {
  const run = await started(t);
  const metadata = await enterTask(t, run);
  const events = t.sdk.runs.subscribeToRun(run).withStreams()[Symbol.asyncIterator]();
  const parts = [1, { two: 2 }, "three"];
  const told = [];
  for await (const part of await metadata.stream("log", ReadableStream.from(parts))) told.push(part);
  await metadata.flush();
  t.assert.deepEqual(told, parts);
  const got = [];
  await t.until(events, (event) => event.type === "log" && got.push(event.chunk) === parts.length);
  t.assert.deepEqual(got, parts);
});

check.v4("streams.pipe, writer, append and define write from a task", async (t) => {
  const parent = await started(t);
  const run = await started(t, { parentRunId: parent });
  await enterTask(t, run, { parent });
  const { streams } = t.sdk;
  await streams.pipe("piped", ReadableStream.from([1, "two"])).waitUntilComplete();
  await streams.pipe("above", ReadableStream.from(["up"]), { target: "parent" }).waitUntilComplete();
  await streams.writer("written", { execute: ({ write }) => write({ n: 1 }) }).waitUntilComplete();
  await streams.append("appended", "line");
  const defined = streams.define({ id: "defined" });
  await defined.pipe(ReadableStream.from([{ n: 1 }])).waitUntilComplete();
  await defined.append({ n: 2 });
  await t.finish(run);
  await t.finish(parent);

  const read = async (of, key) => {
    const parts = [];
    for await (const part of await streams.read(of, key)) parts.push(part);
    return parts;
  };
  t.assert.deepEqual(await read(run, "piped"), [1, "two"]);
  t.assert.deepEqual(await read(parent, "above"), ["up"]);
  t.assert.deepEqual(await read(run, "written"), [{ n: 1 }]);
  t.assert.deepEqual(await read(run, "appended"), ["line"]);
  t.assert.deepEqual(await read(run, "defined"), [{ n: 1 }, { n: 2 }]);
});

check.v4("what a task triggers are its children, which it may follow", async (t) => {
  const run = await started(t);
  await enterTask(t, run);
  const one = await t.sdk.tasks.trigger("grandchild", {});
  const batch = await t.sdk.tasks.batchTrigger("grandchild", [{ payload: 1 }]);
  const [other] = (await t.sdk.batch.retrieve(batch.batchId)).runs;
  for (const child of [one.id, other]) {
    t.assert.equal((await t.sdk.runs.retrieve(child)).relatedRuns.parent.id, run);
  }

  const result = t.sdk.tasks.triggerAndSubscribe("followed", {});
  let child;
  while (!child) [child] = (await t.sdk.runs.list({ taskIdentifier: "followed" })).data;
  await t.finish(child.id, { output: { n: 7 } });
  t.assert.deepEqual((await t.soon(result)).output, { n: 7 });
});

check.v4("waits of a task end when what is waited for is there", async (t) => {
  const run = await started(t);
  await enterTask(t, run);
  const ids = await attendToWaits(t, run);
  const waiting = (count) =>
    t.eventually(async () => {
      t.assert.equal((await t.request("GET", `/api/v3/runs/${run}`)).status, "WAITING");
      t.assert.equal(ids.length, count);
    });
  const { wait, streams } = t.sdk;

  const token = await wait.createToken({});
  const approval = wait.forToken(token);
  await waiting(1);
  await wait.completeToken(token, { by: "ü" });
  t.assert.deepEqual(await t.soon(approval), { ok: true, output: { by: "ü" } });

  const late = await t.soon(wait.forToken(await wait.createToken({ timeout: "1s" })));
  t.assert.equal(late.ok, false);
  t.assert.match(late.error.message, /timed out/);

  const hour = wait.until({ date: new Date(Date.now() + 3_600_000) });
  await waiting(3);
  await wait.completeToken(ids[2], {});
  await t.soon(hour);

  const chat = streams.input({ id: "chat" });
  const answer = chat.wait();
  await waiting(4);
  await chat.send(run, { text: "hi" });
  t.assert.deepEqual(await t.soon(answer), { ok: true, output: { text: "hi" } });
});
