// Streams and metadata, as subscribers of the SDK see them.

import { check } from "../lib/check.mjs";

const iterate = (subscription) => subscription[Symbol.asyncIterator]();

check("withStreams gives every part of a stream in order", async (t) => {
  const id = await t.trigger();
  await t.work(id, { status: "EXECUTING" });
  const parts = Array.from({ length: 30 }, (_, n) => ({ n, text: `part ${n}\n` }));
  const events = iterate(t.sdk.runs.subscribeToRun(id).withStreams());
  await t.until(events, (event) => event.type === "run");
  await t.stream(id, "llm", parts);
  const got = [];
  await t.until(events, (event) => {
    if (event.type === "llm") got.push(event.chunk);
    return got.length === parts.length;
  });
  t.assert.deepEqual(got, parts);
});

check("withStreams finds streams that were there before", async (t) => {
  const id = await t.trigger();
  await t.stream(id, "one", [1, 2]);
  await t.stream(id, "two", ["a"]);
  const events = iterate(t.sdk.runs.subscribeToRun(id).withStreams());
  const got = { one: [], two: [] };
  await t.until(events, (event) => {
    if (event.type !== "run") got[event.type].push(event.chunk);
    return got.one.length === 2 && got.two.length === 1;
  });
  t.assert.deepEqual(got, { one: [1, 2], two: ["a"] });
});

check("metadata arrives as it was set, streams do not show in it to new clients", async (t) => {
  const id = await t.trigger();
  await t.setMetadata(id, { steps: [1, { deep: null }], text: "größe" });
  await t.stream(id, "log", [1]);
  const runs = iterate(t.sdk.runs.subscribeToRun(id));
  const [run] = await t.until(runs, () => true);
  const { $$streams, ...metadata } = run.metadata;
  t.assert.deepEqual(metadata, { steps: [1, { deep: null }], text: "größe" });
  t.assert.deepEqual($$streams, t.isOld ? ["log"] : undefined);
});
