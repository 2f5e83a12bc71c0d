// Reading streams by themselves, and sending to a run.

import { check } from "../lib/check.mjs";

check("fetchStream gives every part and ends with the run", async (t) => {
  const id = await t.trigger();
  await t.work(id, { status: "EXECUTING" });
  const parts = [{ n: 1 }, "text", null, ["ü\n"], 5];
  await t.stream(id, "llm", parts);
  await t.finish(id);
  const got = [];
  const stream = t.isOld
    ? await t.sdk.runs.fetchStream(id, "llm")
    : await t.sdk.streams.read(id, "llm");
  for await (const part of stream) got.push(part);
  t.assert.deepEqual(got, parts);
});

check.v4("streams.read begins where it is told", async (t) => {
  const id = await t.trigger();
  await t.work(id, { status: "EXECUTING" });
  await t.stream(id, "llm", [0, 1, 2, 3]);
  await t.finish(id);
  const got = [];
  for await (const part of await t.sdk.streams.read(id, "llm", { startIndex: 2 })) got.push(part);
  t.assert.deepEqual(got, [2, 3]);
});

check.v4("streams.input sends to a run with the token of its handle", async (t) => {
  const handle = await t.sdk.tasks.trigger("chat", {});
  const chat = t.sdk.streams.input({ id: "chat" });
  await t.as(handle.publicAccessToken, () => chat.send(handle.id, { text: "hi ü" }));
  await t.work(handle.id, { status: "EXECUTING" });
  await t.finish(handle.id);
  const got = [];
  for await (const part of await t.sdk.streams.read(handle.id, "$trigger.input:chat")) got.push(part);
  t.assert.deepEqual(got.map((part) => JSON.parse(part)), [{ text: "hi ü" }]);
});
