// The rest of the management functions: changing runs, batches, keys, and tokens for triggering.

import { check } from "../lib/check.mjs";

check("runs.cancel, reschedule, replay and poll", async (t) => {
  const { runs, tasks } = t.sdk;
  const { id } = await tasks.trigger("later", { n: 1 }, { delay: "1h", tags: ["a"] });
  const first = await runs.retrieve(id);
  t.assert.equal(first.status, "DELAYED");
  const moved = await runs.reschedule(id, { delay: "2h" });
  t.assert.ok(moved.delayedUntil > first.delayedUntil);
  t.assert.deepEqual(await runs.cancel(id), { id });
  const canceled = await runs.retrieve(id);
  t.assert.equal(canceled.status, "CANCELED");
  t.assert.ok(canceled.finishedAt instanceof Date);
  const again = await runs.retrieve((await runs.replay(id)).id);
  t.assert.deepEqual([again.payload, again.tags], [{ n: 1 }, ["a"]]);

  const polled = runs.poll(again.id, { pollIntervalMs: 50 });
  await t.finish(again.id, { output: { n: 1 } });
  const run = await t.soon(polled);
  t.assert.deepEqual([run.status, run.output], ["COMPLETED", { n: 1 }]);
});

check.v3("tasks.triggerAndPoll waits for the end of its run", async (t) => {
  const result = t.sdk.tasks.triggerAndPoll("polled", {}, { pollIntervalMs: 50 });
  let run;
  while (!run) [run] = (await t.sdk.runs.list({ taskIdentifier: "polled" })).data;
  await t.finish(run.id);
  t.assert.equal((await t.soon(result)).status, "COMPLETED");
});

check("tasks, batches of tasks and batches by id are triggered and retrieved", async (t) => {
  const { batch, schemaTask, task } = t.sdk;
  const own = task({ id: "own", run: async () => 1 });
  const strict = schemaTask({ id: "strict", schema: (value) => ({ ...value, seen: 1 }), run() {} });
  const { id } = await strict.trigger({ n: 1 });
  t.assert.deepEqual((await t.sdk.runs.retrieve(id)).payload, { n: 1, seen: 1 });
  t.assert.match((await own.trigger({})).id, /^run_/);
  const batches = [
    await own.batchTrigger([{ payload: 1 }, { payload: 2 }]),
    await batch.trigger([{ id: "own", payload: 1 }, { id: "other", payload: 2 }]),
    await batch.triggerByTask([{ task: own, payload: 1 }, { task: strict, payload: {} }]),
  ];
  for (const { batchId } of batches) {
    t.assert.equal((await batch.retrieve(batchId)).runCount, 2);
  }
});

check("an idempotency key or a debounce key gives the same run", async (t) => {
  const { idempotencyKeys, tasks } = t.sdk;
  const idempotencyKey = await idempotencyKeys.create("order-1", { scope: "global" });
  const trigger = async () => (await tasks.trigger("once", {}, { idempotencyKey })).id;
  const first = await trigger();
  t.assert.equal(await trigger(), first);
  if (t.isOld) return; // its clients can neither reset keys nor debounce
  await idempotencyKeys.reset("once", idempotencyKey);
  t.assert.notEqual(await trigger(), first);

  const debounce = { key: "k", delay: "5m", mode: "trailing" };
  const one = await tasks.trigger("calm", { n: 1 }, { debounce });
  const two = await tasks.trigger("calm", { n: 2 }, { debounce });
  t.assert.equal(one.id, two.id);
  t.assert.deepEqual((await t.sdk.runs.retrieve(one.id)).payload, { n: 2 });
});

check("tokens for triggering open one task, once, also by auth.withTriggerPublicToken", async (t) => {
  const { auth, runs, tasks } = t.sdk;
  const token = await auth.createTriggerPublicToken("hello", { expirationTime: "11m" });
  await t.as(token, async () => {
    await t.fails(403, () => tasks.trigger("other", {}));
    t.assert.match((await tasks.trigger("hello", {})).id, /^run_/);
    await t.fails(422, () => tasks.trigger("hello", {}));
  });
  const many = await auth.createBatchTriggerPublicToken("hello", { expirationTime: "12m" });
  await t.as(many, async () => {
    t.assert.match((await tasks.batchTrigger("hello", [{ payload: 1 }])).batchId, /^batch_/);
  });

  const { id } = await tasks.trigger("hello", {});
  await auth.withPublicToken({ scopes: { read: { runs: id } } }, async () => {
    t.assert.equal((await runs.retrieve(id)).id, id);
    await t.fails(403, () => runs.list());
  });
  await auth.withTriggerPublicToken("hello", { expirationTime: "13m" }, async () => {
    t.assert.match((await tasks.trigger("hello", {})).id, /^run_/);
  });
  await auth.withBatchTriggerPublicToken("hello", { expirationTime: "14m" }, async () => {
    t.assert.match((await tasks.batchTrigger("hello", [{ payload: 1 }])).batchId, /^batch_/);
  });
});

check("each TriggerClient has a key of its own, and what is not here is a 404", async (t) => {
  await t.fails(404, () => t.sdk.schedules.list());
  await t.fails(404, () => t.sdk.envvars.list("proj_1", "dev"));
  if (t.isOld) return; // it has no clients with keys of their own
  const { id } = await t.sdk.tasks.trigger("hello", {});
  const client = new t.sdk.TriggerClient({ accessToken: t.key, baseURL: t.url });
  t.assert.equal((await client.runs.retrieve(id)).id, id);
  const stranger = new t.sdk.TriggerClient({ accessToken: "tr_dev_wrongwrong", baseURL: t.url });
  await t.fails(401, () => stranger.runs.retrieve(id));
});
