// Triggering, reading and listing runs, and the tokens that come with them.

import { check } from "../lib/check.mjs";

const iterate = (subscription) => subscription[Symbol.asyncIterator]();

check("tasks.trigger gives a handle whose token follows the run", async (t) => {
  const payload = { when: new Date(0), text: "größe" };
  const handle = await t.sdk.tasks.trigger("hello/world", payload, { tags: ["a"] });
  t.assert.match(handle.id, /^run_/);
  t.useToken(handle.publicAccessToken);
  const runs = iterate(t.sdk.runs.subscribeToRun(handle.id));
  const [run] = await t.until(runs, () => true);
  t.assert.equal(run.taskIdentifier, "hello/world");
  t.assert.deepEqual(run.payload, payload);
});

check("runs.retrieve gives a run in each state", async (t) => {
  const handle = await t.sdk.tasks.trigger("hello", { n: 1 });
  const queued = await t.sdk.runs.retrieve(handle.id);
  t.assert.equal(queued.status, "QUEUED");
  t.assert.deepEqual(queued.payload, { n: 1 });
  t.assert.equal(queued.finishedAt, undefined);
  await t.finish(handle.id, { output: [1, 2] });
  const finished = await t.sdk.runs.retrieve(handle.id);
  t.assert.equal(finished.status, "COMPLETED");
  t.assert.deepEqual(finished.output, [1, 2]);
  t.assert.ok(finished.finishedAt instanceof Date);
});

check("runs.list pages through all runs", async (t) => {
  const ids = [];
  for (let n = 0; n < 5; n += 1) ids.unshift(await t.trigger("listed", { tags: ["l"] }));
  const listed = [];
  for await (const run of t.sdk.runs.list({ limit: 2, tag: "l" })) listed.push(run.id);
  t.assert.deepEqual(listed, ids);
});

check.v3("batch.trigger of 3.3 gives handles that can be followed", async (t) => {
  const batch = await t.sdk.tasks.batchTrigger("hello", [{ payload: 1 }, { payload: 2 }]);
  t.assert.match(batch.batchId, /^batch_/);
  t.assert.equal(batch.runs.length, 2);
  t.useToken(batch.publicAccessToken);
  const runs = iterate(t.sdk.runs.subscribeToBatch(batch.batchId));
  const ids = new Set();
  await t.until(runs, (run) => ids.add(run.id).size === 2, "both runs");
});

check("auth.createPublicToken opens what its scopes say", async (t) => {
  const tagged = await t.trigger("hello", { tags: ["mine"] });
  await t.trigger("hello", { tags: ["theirs"] });
  t.useToken(await t.sdk.auth.createPublicToken({ scopes: { read: { tags: ["mine"] } } }));
  const [run] = await t.until(iterate(t.sdk.runs.subscribeToRunsWithTag("mine")), () => true);
  t.assert.equal(run.id, tagged);
  await t.assert.rejects(t.sdk.runs.list().then((page) => page), (error) => error.status === 403);
});

check("errors have the status that the gateway gave", async (t) => {
  await t.assert.rejects(t.sdk.runs.retrieve("run_none"), (error) => error.status === 404);
  t.useToken("tr_dev_wrongwrongwrongwrong1234");
  await t.assert.rejects(t.sdk.runs.retrieve("run_none"), (error) => error.status === 401);
});
