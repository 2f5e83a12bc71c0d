// Triggering, reading and listing runs, and the tokens that come with them.

import { check } from "../lib/check.mjs";

const iterate = (subscription) => subscription[Symbol.asyncIterator]();

check("tasks.trigger gives a handle whose token follows the run", async (t) => {
  const payload = { when: new Date(0), text: "größe" };
  const handle = await t.sdk.tasks.trigger("hello/world", payload, { tags: ["a"] });
  t.assert.match(handle.id, /^run_/);
  await t.as(handle.publicAccessToken, async () => {
    const [run] = await t.until(iterate(t.sdk.runs.subscribeToRun(handle.id)), () => true);
    t.assert.equal(run.taskIdentifier, "hello/world");
    t.assert.deepEqual(run.payload, payload);
  });
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
  let page = await t.sdk.runs.list({ limit: 2, tag: "l" });
  for (const [turn, place] of [["Next", 2], ["Previous", 0], ["Next", 2], ["Next", 4], ["Previous", 2]]) {
    page = await page[`get${turn}Page`]();
    t.assert.deepEqual(page.data.map((run) => run.id), ids.slice(place, place + 2));
  }
});

check.v3("batch.trigger of 3.3 gives handles that can be followed", async (t) => {
  const batch = await t.sdk.tasks.batchTrigger("hello", [{ payload: 1 }, { payload: 2 }]);
  t.assert.match(batch.batchId, /^batch_/);
  t.assert.equal(batch.runs.length, 2);
  await t.as(batch.publicAccessToken, async () => {
    const runs = iterate(t.sdk.runs.subscribeToBatch(batch.batchId));
    const ids = new Set();
    await t.until(runs, (run) => ids.add(run.id).size === 2, "both runs");
  });
});

check("auth.createPublicToken opens what its scopes say", async (t) => {
  const tagged = await t.trigger("hello", { tags: ["mine"] });
  await t.trigger("hello", { tags: ["theirs"] });
  const token = await t.sdk.auth.createPublicToken({ scopes: { read: { tags: ["mine"] } } });
  await t.as(token, async () => {
    const [run] = await t.until(iterate(t.sdk.runs.subscribeToRunsWithTag("mine")), () => true);
    t.assert.equal(run.id, tagged);
    await t.fails(403, () => t.sdk.runs.list());
  });
});

check("errors have the status that the gateway gave", async (t) => {
  await t.fails(404, () => t.sdk.runs.retrieve("run_none"));
  await t.as("tr_dev_wrongwrongwrongwrong1234", async () => {
    await t.fails(401, () => t.sdk.runs.retrieve("run_none"));
  });
});

check.v4("tasks.batchTrigger of 4 gives a batch that can be followed", async (t) => {
  const batch = await t.sdk.tasks.batchTrigger("hello", [{ payload: 1 }, { payload: 2 }]);
  t.assert.match(batch.batchId, /^batch_/);
  t.assert.equal(batch.runCount, 2);
  await t.as(batch.publicAccessToken, async () => {
    const runs = iterate(t.sdk.runs.subscribeToBatch(batch.batchId));
    const payloads = new Map();
    await t.until(runs, (run) => payloads.set(run.id, run.payload).size === 2, "both runs");
    t.assert.deepEqual([...payloads.values()].sort(), [1, 2]);
  });
});
