// Subscriptions of the SDK: runs, tags, batches, and what happens to them on the way.

import { check } from "../lib/check.mjs";

const iterate = (subscription) => subscription[Symbol.asyncIterator]();
const isFinal = (run) => run.finishedAt !== undefined;

check("runs.subscribeToRun follows a run to its end", async (t) => {
  const id = await t.trigger("hello", { payload: { n: 1 }, tags: ["a", 'b,"\\'] });
  const runs = iterate(t.sdk.runs.subscribeToRun(id));
  const [first] = await t.until(runs, () => true);
  t.assert.equal(first.id, id);
  t.assert.equal(first.status, "QUEUED");
  t.assert.deepEqual(first.payload, { n: 1 });
  t.assert.deepEqual([...first.tags].sort(), ["a", 'b,"\\']);
  t.assert.ok(first.createdAt instanceof Date && !Number.isNaN(+first.createdAt));
  t.assert.ok(Math.abs(Date.now() - first.createdAt) < 60_000);
  await t.work(id, { status: "EXECUTING" });
  await t.until(runs, (run) => run.status === "EXECUTING");
  await t.setMetadata(id, { progress: 0.5 });
  await t.until(runs, (run) => run.metadata?.progress === 0.5);
  await t.finish(id, { output: { answer: 42 } });
  const last = (await t.until(runs, isFinal)).at(-1);
  t.assert.equal(last.status, "COMPLETED");
  t.assert.deepEqual(last.output, { answer: 42 });
  if (!t.isOld) t.assert.equal((await t.soon(runs.next(), "the end")).done, true);
});

check("runs.subscribeToRun gives a finished run at once", async (t) => {
  const id = await t.trigger();
  await t.finish(id);
  const [run] = await t.until(iterate(t.sdk.runs.subscribeToRun(id)), isFinal);
  t.assert.equal(run.status, "COMPLETED");
});

check("every status arrives, also those that the client does not know", async (t) => {
  const id = await t.trigger("hello", { delay: "1h" });
  const runs = iterate(t.sdk.runs.subscribeToRun(id));
  await t.until(runs, (run) => run.status === "DELAYED");
  const old = {
    PENDING_VERSION: "WAITING_FOR_DEPLOY",
    PENDING: "QUEUED",
    DEQUEUED: "EXECUTING",
    WAITING_TO_RESUME: "FROZEN",
    RETRYING_AFTER_FAILURE: "REATTEMPTING",
  };
  const now = {
    PENDING_VERSION: "PENDING_VERSION",
    PENDING: "QUEUED",
    DEQUEUED: "DEQUEUED",
    WAITING_TO_RESUME: "WAITING",
    RETRYING_AFTER_FAILURE: "EXECUTING",
  };
  for (const [raw, shown] of Object.entries(t.isOld ? old : now)) {
    await t.work(id, { status: raw });
    await t.until(runs, (run) => run.status === shown, raw);
  }
});

check("a failed run carries its error, whatever was stored", async (t) => {
  const errors = [
    [{ type: "BUILT_IN_ERROR", name: "TypeError", message: "no", stackTrace: "at x" }, "no"],
    [{ message: "no trace" }, "no trace"],
    ["only text", "only text"],
  ];
  for (const [error, message] of errors) {
    const id = await t.trigger();
    const runs = iterate(t.sdk.runs.subscribeToRun(id));
    await t.until(runs, () => true);
    await t.work(id, { status: "COMPLETED_WITH_ERRORS", error });
    const last = (await t.until(runs, isFinal)).at(-1);
    t.assert.equal(last.status, "FAILED");
    t.assert.equal(last.error.message, message);
  }
});

check("a burst of updates ends with the newest state", async (t) => {
  const id = await t.trigger();
  const runs = iterate(t.sdk.runs.subscribeToRun(id));
  await t.until(runs, () => true);
  for (let n = 1; n <= 40; n += 1) await t.setMetadata(id, { n });
  const seen = await t.until(runs, (run) => run.metadata?.n === 40, "the newest state");
  const numbers = seen.map((run) => run.metadata?.n ?? 0);
  t.assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b));
});

check("runs.subscribeToRunsWithTag shows what is there and what comes", async (t) => {
  const first = await t.trigger("hello", { tags: ["user:1", "x"] });
  await t.trigger("hello", { tags: ["user:2"] });
  const runs = iterate(t.sdk.runs.subscribeToRunsWithTag("user:1"));
  t.assert.equal((await t.until(runs, () => true))[0].id, first);
  const second = await t.trigger("other", { tags: ["user:1"] });
  await t.until(runs, (run) => run.id === second, "the second run");
  await t.finish(first);
  await t.until(runs, (run) => run.id === first && isFinal(run), "the end of the first");
});

check("runs.subscribeToRunsWithTag with several tags wants all of them", async (t) => {
  await t.trigger("hello", { tags: ["a"] });
  const both = await t.trigger("hello", { tags: ["a", "b"] });
  const runs = iterate(t.sdk.runs.subscribeToRunsWithTag(["a", "b"]));
  t.assert.equal((await t.until(runs, () => true))[0].id, both);
});

check("runs.subscribeToRunsWithTag shows hundreds of runs", async (t) => {
  const items = Array.from({ length: 300 }, (_, n) => ({
    task: "many",
    payload: { n },
    options: { tags: ["many"] },
  }));
  for (let round = 0; round < 4; round += 1) {
    await t.request("POST", "/api/v2/tasks/batch", { items });
  }
  const ids = new Set();
  await t.until(
    iterate(t.sdk.runs.subscribeToRunsWithTag("many")),
    (run) => ids.add(run.id).size === 1200,
    "all runs",
  );
});

check("runs.subscribeToBatch shows each run of a batch", async (t) => {
  const items = [{ task: "one" }, { task: "two" }];
  const batch = await t.request("POST", "/api/v1/tasks/batch", { items });
  const runs = iterate(t.sdk.runs.subscribeToBatch(batch.id));
  const ids = new Set();
  await t.until(runs, (run) => ids.add(run.id).size === 2, "both runs");
  t.assert.deepEqual([...ids].sort(), batch.runs.map((run) => run.id).sort());
  await t.finish(batch.runs[1].id);
  await t.until(runs, (run) => run.id === batch.runs[1].id && isFinal(run));
});

check.v4("skipColumns leaves columns out", async (t) => {
  const id = await t.trigger("hello", { payload: { big: true } });
  const options = { skipColumns: ["payload"] };
  const [run] = await t.until(iterate(t.sdk.runs.subscribeToRun(id, options)), () => true);
  t.assert.equal(run.payload, undefined);
  t.assert.equal(run.status, "QUEUED");
});

check("a public token opens its run and no other", async (t) => {
  const [mine, other] = [await t.trigger(), await t.trigger()];
  const token = await t.sdk.auth.createPublicToken({ scopes: { read: { runs: [mine] } } });
  await t.as(token, async () => {
    await t.until(iterate(t.sdk.runs.subscribeToRun(mine)), (run) => run.id === mine);
    await t.fails(403, () => t.sdk.runs.retrieve(other));
  });
});

check("an expired token ends a subscription with 401, never with anything else", async (t) => {
  const id = await t.trigger();
  const token = await t.sdk.auth.createPublicToken({
    scopes: { read: { runs: [id] } },
    expirationTime: "4s",
  });
  const requests = t.watchRequests("/realtime/");
  const runs = await t.as(token, async () => iterate(t.sdk.runs.subscribeToRun(id)));
  await t.until(runs, () => true);
  // It neither throws nor ends; what counts is what the gateway answers.
  runs.next().catch(() => {});
  for (let waited = 0; requests.at(-1) !== 401; waited += 50) {
    t.assert.ok(waited < 12_000, `no 401 came, but ${requests}`);
    await t.pause(50);
  }
  t.assert.deepEqual([...new Set(requests)], [200, 401]);
  t.assert.ok(requests.length < 20, `a loop of ${requests.length} requests`);
});

check("a subscription survives a restart of the gateway", async (t) => {
  const id = await t.trigger();
  const runs = iterate(t.sdk.runs.subscribeToRun(id));
  await t.until(runs, () => true);
  await t.ask("restart the gateway");
  await t.work(id, { status: "EXECUTING" });
  await t.until(runs, (run) => run.status === "EXECUTING");
  await t.finish(id);
  await t.until(runs, isFinal);
});

check("what happens while the gateway is away is not lost", async (t) => {
  const ids = [await t.trigger("a", { tags: ["away"] }), await t.trigger("b", { tags: ["away"] })];
  const runs = iterate(t.sdk.runs.subscribeToRunsWithTag("away"));
  const seen = new Set();
  await t.until(runs, (run) => seen.add(run.id).size === 2);
  await t.ask(`finish ${ids[0]} while the gateway is away`);
  await t.until(runs, (run) => run.id === ids[0] && isFinal(run));
});

check("another database makes the client fetch anew", async (t) => {
  const id = await t.trigger();
  const runs = iterate(t.sdk.runs.subscribeToRun(id));
  await t.until(runs, () => true);
  await t.ask("move to a copy of the database");
  await t.setMetadata(id, { after: true });
  await t.until(runs, (run) => run.metadata?.after === true);
});

check("a long poll that finds nothing goes on, without a hot loop", async (t) => {
  const id = await t.trigger();
  const requests = t.watchRequests("/realtime/");
  const runs = iterate(t.sdk.runs.subscribeToRun(id));
  await t.until(runs, () => true);
  await t.pause(5000); // a poll waits for two seconds here
  t.assert.ok(requests.length >= 2 && requests.length <= 6, `${requests.length} requests`);
  await t.finish(id);
  await t.until(runs, isFinal);
});
