// The hooks that do something: trigger, complete, send.

import { check } from "../lib/check.mjs";

/** A token for one trigger; those made in one second are the same unless their ends differ. */
async function triggerToken(t, task, seconds, options = {}) {
  const expirationTime = new Date(Date.now() + seconds * 1000);
  return await t.sdk.auth.createTriggerPublicToken(task, { expirationTime, ...options });
}

check("useTaskTrigger triggers a task, once with a token for once", async (t) => {
  const page = await t.page();
  const view = page.show((h) => h.useTaskTrigger("hello/world"), {
    auth: await triggerToken(t, "hello/world", 600),
  });
  await view.until((shown) => !shown.isLoading);
  const payload = { when: new Date(0), text: "größe" };
  const queue = t.isOld ? { name: "q" } : "q";
  view.last.submit(payload, { tags: ["a"], metadata: { from: "page" }, ttl: "1h", queue });
  const { handle } = await view.until((shown) => shown.handle);
  const run = await t.sdk.runs.retrieve(handle.id);
  t.assert.equal(run.taskIdentifier, "hello/world");
  t.assert.deepEqual([run.tags, run.metadata, run.ttl], [["a"], { from: "page" }, "1h"]);
  // The token of the handle reads the run.
  const auth = handle.publicAccessToken;
  const reader = page.show((h) => h.useRealtimeRun(handle.id), { auth });
  await reader.until((shown) => shown.run);
  t.assert.deepEqual(reader.last.run.payload, payload);
  const retrieved = page.show((h) => h.useRun(handle.id), { auth });
  await retrieved.until((shown) => shown.run);
  view.last.submit({ again: true });
  const { error } = await view.until((shown) => shown.error);
  t.assert.equal(error.status, 422, String(error));
  await t.stray((stray) => stray.status === 422);
  // Of another task, and of one that expired.
  for (const [status, token] of [
    [403, await triggerToken(t, "other", 600)],
    [401, await triggerToken(t, "hello/world", -5)],
  ]) {
    const refused = page.show((h) => h.useTaskTrigger("hello/world"), { auth: token });
    await refused.until((shown) => !shown.isLoading);
    refused.last.submit({});
    await refused.until((shown) => shown.error?.status === status);
    await t.stray((stray) => stray.status === status);
  }
  // Many times with a token for that; the same key gives the same run.
  const many = page.show((h) => h.useTaskTrigger("hello"), {
    auth: await triggerToken(t, "hello", 600, { multipleUse: true }),
  });
  await many.until((shown) => !shown.isLoading);
  many.last.submit(1, { idempotencyKey: "k" });
  const first = (await many.until((shown) => shown.handle)).handle;
  many.last.submit(2);
  const second = (await many.until((shown) => shown.handle.id !== first.id)).handle;
  many.last.submit(1, { idempotencyKey: "k" });
  await many.until((shown) => shown.handle.id === first.id);
  t.assert.equal((await t.sdk.runs.retrieve(second.id)).payload, 2);
});

check("useRealtimeTaskTrigger and its kin with streams follow what they trigger", async (t) => {
  const page = await t.page();
  const completed = [];
  const plain = page.show(
    (h) => h.useRealtimeTaskTrigger("hello", { onComplete: (run) => completed.push(run.output) }),
    { auth: await triggerToken(t, "hello", 500) },
  );
  const streaming = page.show(
    (h) => h.useRealtimeTaskTriggerWithStreams("hello", { experimental_throttleInMs: 20 }),
    { auth: await triggerToken(t, "hello", 501), strict: true },
  );
  for (const view of [plain, streaming]) {
    await view.until((shown) => shown.submit);
    view.last.submit({ n: 1 });
    await view.until(({ handle, run }) => run && run.id === handle.id);
    t.assert.deepEqual(view.last.run.payload, { n: 1 });
    t.assert.equal(view.last.run.status, "QUEUED");
  }
  const id = streaming.last.run.id;
  await t.work(id, { status: "EXECUTING" });
  await t.stream(id, "llm", ["a", "b"]);
  await streaming.until(({ streams }) => streams.llm?.length === 2);
  for (const view of [plain, streaming]) {
    await t.finish(view.last.run.id, { output: "done" });
    await view.until(({ run }) => run.output === "done");
  }
  t.assert.deepEqual(streaming.last.streams, { llm: ["a", "b"] });
  await plain.until(() => completed.length > 0);
  t.assert.deepEqual(completed, ["done"]);
  plain.last.submit({ again: true });
  await plain.until(({ error }) => error?.status === 422);
  await t.stray((stray) => stray.status === 422);
});

check.v4("useWaitToken completes a wait token", async (t) => {
  const page = await t.page();
  const token = await t.sdk.wait.createToken({});
  const other = await t.sdk.wait.createToken({ timeout: "1h" });
  const view = page.show((h) => h.useWaitToken(token.id), { auth: token.publicAccessToken });
  await view.until(({ isReady }) => isReady);
  view.last.complete({ ok: ["ü"] });
  await view.until(({ isCompleted }) => isCompleted);
  const done = await t.sdk.wait.retrieveToken(token.id);
  t.assert.deepEqual([done.status, done.output], ["COMPLETED", { ok: ["ü"] }]);
  for (const [status, id] of [[403, other.id], [403, "waitpoint_none"]]) {
    const refused = page.show((h) => h.useWaitToken(id), { auth: token.publicAccessToken });
    await refused.until(({ isReady }) => isReady);
    refused.last.complete({});
    await refused.until(({ error }) => error?.status === status);
    await t.stray((stray) => stray.status === status);
  }
  t.assert.equal((await t.sdk.wait.retrieveToken(other.id)).status, "WAITING");
});

check.v4("useInputStreamSend sends to a run", async (t) => {
  const page = await t.page();
  const handle = await t.sdk.tasks.trigger("chat", {});
  const auth = handle.publicAccessToken;
  const send = page.show((h) => h.useInputStreamSend("chat", handle.id), { auth });
  const nowhere = page.show((h) => h.useInputStreamSend("chat", undefined), { auth });
  const shown = page.show((h) => h.useRealtimeStream(handle.id, "$trigger.input:chat"), { auth });
  await nowhere.until(({ isReady }) => isReady === false);
  await send.until(({ isReady }) => isReady);
  send.last.send({ text: "hi ü" });
  await shown.until(({ parts }) => parts.length === 1);
  t.assert.deepEqual(JSON.parse(shown.last.parts[0]), { text: "hi ü" });
  await send.until(({ isLoading }) => !isLoading);
  const other = await t.trigger();
  const foreign = page.show((h) => h.useInputStreamSend("chat", other), { auth });
  await foreign.until(({ isReady }) => isReady);
  foreign.last.send({});
  await foreign.until(({ error }) => error?.status === 403);
  await t.stray((stray) => stray.status === 403);
  await t.finish(handle.id);
  send.last.send({ late: true });
  await send.until(({ error }) => error?.status === 400);
  await t.stray((stray) => stray.status === 400);
});

check.v4("useRealtimeStream renews a token that expired, where it is told how", async (t) => {
  const id = await t.trigger();
  await t.stream(id, "llm", [1]);
  const page = await t.page();
  let renewals = 0;
  const expirationTime = new Date(Date.now() - 5000);
  const auth = {
    accessToken: await t.token({ read: { runs: [id] } }, { expirationTime }),
    refreshAccessToken: async () => {
      renewals += 1;
      return await t.token({ read: { runs: [id] } });
    },
  };
  const stream = page.show((h) => h.useRealtimeStream(id, "llm"), { auth });
  await stream.until(({ parts }) => parts.length === 1);
  t.assert.equal(stream.last.error, undefined);
  t.assert.equal(renewals, 1);
});
