// The hooks that show runs: one, all with a tag, those of a batch.

import { check } from "../lib/check.mjs";

check("useRealtimeRun shows a run until it is finished", async (t) => {
  const id = await t.trigger("hello", { payload: { n: 1 }, tags: ["a"] });
  const page = await t.page();
  const auth = await t.token({ read: { runs: [id] } });
  const completed = [];
  const view = page.show(
    ({ useRealtimeRun }) =>
      useRealtimeRun(id, { onComplete: (run, error) => completed.push([run, error]) }),
    { auth },
  );
  const { run } = await view.until(({ run }) => run?.status === "QUEUED");
  t.assert.deepEqual(run.payload, { n: 1 });
  t.assert.deepEqual(run.tags, ["a"]);
  t.assert.ok(run.createdAt instanceof Date);
  await t.work(id, { status: "EXECUTING" });
  await view.until(({ run }) => run.status === "EXECUTING");
  await t.setMetadata(id, { progress: 0.5 });
  await view.until(({ run }) => run.metadata?.progress === 0.5);
  await t.finish(id, { output: { answer: 42 } });
  const { run: last, error } = await view.until(({ run }) => run.finishedAt);
  t.assert.equal(last.status, "COMPLETED");
  t.assert.deepEqual(last.output, { answer: 42 });
  t.assert.equal(error, undefined);
  await view.until(() => completed.length > 0, "onComplete");
  t.assert.deepEqual(completed, [[last, undefined]]);
});

check("useRealtimeRunsWithTag shows the runs that are there and those that come", async (t) => {
  const page = await t.page();
  const auth = await t.token({ read: { tags: ["a", "b"] } });
  const first = await t.trigger("hello", { tags: ["a"], payload: "large" });
  const both = await t.trigger("hello", { tags: ["a", "b"] });
  const ids = (shown) => shown.runs.map((run) => run.id);
  const addresses = t.watchAddresses("/realtime/");
  const some = { createdAt: "1h", skipColumns: ["payload"] };
  const tagged = page.show((h) => h.useRealtimeRunsWithTag("a", some), { auth });
  // Always the same list: one made while rendering makes hooks of 3.3 subscribe each time.
  const pair = ["a", "b"];
  const narrow = page.show((h) => h.useRealtimeRunsWithTag(pair), { auth });
  await tagged.until((shown) => ids(shown).includes(first) && ids(shown).includes(both));
  t.assert.equal(addresses[0].searchParams.get("createdAt"), t.isOld ? null : "1h");
  await narrow.until((shown) => shown.runs.length === 1);
  const later = await t.trigger("other", { tags: ["b", "a"] });
  await narrow.until((shown) => shown.runs.length === 2);
  t.assert.deepEqual(ids(narrow.last), [both, later]);
  await tagged.until((shown) => shown.runs.length === 3);
  t.assert.deepEqual(ids(tagged.last), [first, both, later]);
  // Clients of 3.3 know of no columns to skip.
  t.assert.equal(tagged.last.runs[0].payload, t.isOld ? "large" : undefined);
  await t.finish(first);
  await tagged.until(({ runs }) => runs[0].finishedAt);
});

check("useRealtimeBatch shows the runs of a batch in their order", async (t) => {
  const page = await t.page();
  const tasks = ["one", "two", "three"];
  const batch = await t.sdk.batch.trigger(tasks.map((id) => ({ id, payload: {} })));
  const auth = batch.publicAccessToken;
  const view = page.show((h) => h.useRealtimeBatch(batch.batchId), { auth });
  const { runs } = await view.until((shown) => shown.runs.length === 3);
  t.assert.deepEqual(runs.map((run) => run.taskIdentifier), tasks);
  await t.finish(runs[1].id);
  await view.until((shown) => shown.runs[1].finishedAt);
});

check("hooks ask for nothing until they are enabled and have a run", async (t) => {
  const [id, other] = [await t.trigger(), await t.trigger()];
  const page = await t.page();
  const auth = await t.token({ read: { runs: true } });
  const addresses = t.watchAddresses("/realtime/");
  const nobody = { auth: { accessToken: undefined } };
  const disabled = page.show((h) => h.useRealtimeRun(id, { enabled: false }), { auth });
  page.show((h) => h.useRealtimeRun(undefined), { auth });
  page.show((h) => h.useRealtimeRunsWithTag("a", { enabled: false }), nobody);
  page.show((h) => h.useRealtimeBatch("batch_none", { enabled: false }), nobody);
  await disabled.until(() => true);
  const tokenless = page.show((h) => h.useRealtimeRun(id), nobody);
  await t.assert.rejects(tokenless.until(() => false), /Missing accessToken/);
  // With its own token and address, and no provider.
  const own = {
    accessToken: auth,
    baseURL: t.url,
    previewBranch: "feature/x",
    requestOptions: { retry: { maxAttempts: 1 } },
  };
  const view = page.show((h) => h.useRealtimeRun(other, own), { auth: null });
  await view.until(({ run }) => run);
  t.assert.ok(addresses.length > 0);
  t.assert.ok(addresses.every(({ pathname }) => pathname.endsWith(other)), String(addresses));
  disabled.draw((h) => h.useRealtimeRun(id, { enabled: true }));
  await disabled.until(({ run }) => run?.id === id);
  view.last.stop();
  disabled.last.stop();
});

check("useRun shows a run, and refreshes it until it is finished", async (t) => {
  const id = await t.trigger("hello", { payload: { n: 1 } });
  const page = await t.page();
  const auth = await t.token({ read: { runs: [id] } });
  const once = page.show((h) => h.useRun(id), { auth });
  const { run } = await once.until((shown) => shown.run);
  t.assert.deepEqual(run.payload, { n: 1 });
  t.assert.equal(once.last.isError, false);
  once.leave();
  const view = page.show((h) => h.useRun(id, { refreshInterval: 50 }), { auth });
  await t.work(id, { status: "EXECUTING" });
  await view.until((shown) => shown.run?.status === "EXECUTING");
  await t.finish(id);
  await view.until((shown) => shown.run.isCompleted);
});

check("hooks show why they were refused, and do not insist", async (t) => {
  const [id, other] = [await t.trigger("hello", { tags: ["a"] }), await t.trigger()];
  const page = await t.page();
  const expired = await t.token(
    { read: { runs: true, tags: true, batch: true } },
    { expirationTime: new Date(Date.now() - 5000) },
  );
  const foreign = await t.token({ read: { runs: [other] } });
  const wide = await t.token({ read: { runs: true, batch: true } });
  const requests = t.watchRequests("/");
  const attempts = [
    [401, expired, (h) => h.useRealtimeRun(id)],
    [401, expired, (h) => h.useRealtimeRunWithStreams(id)],
    [401, expired, (h) => h.useRealtimeRunsWithTag("a")],
    [401, expired, (h) => h.useRun(id)],
    [403, foreign, (h) => h.useRealtimeRun(id)],
    [403, foreign, (h) => h.useRealtimeRunWithStreams(id)],
    [403, foreign, (h) => h.useRealtimeRunsWithTag("a")],
    [404, wide, (h) => h.useRealtimeRun("run_none")],
    [404, wide, (h) => h.useRealtimeRunWithStreams("run_none")],
    [404, wide, (h) => h.useRealtimeBatch("batch_none")],
    [404, wide, (h) => h.useRun("run_none")],
  ];
  if (!t.isOld) {
    attempts.push(
      [401, expired, (h) => h.useRealtimeStream(id, "llm")],
      [403, foreign, (h) => h.useRealtimeStream(id, "llm")],
      [404, wide, (h) => h.useRealtimeStream("run_none", "llm")],
    );
  }
  for (const [status, auth, use] of attempts) {
    const view = page.show(use, { auth });
    const { error } = await view.until((shown) => shown.error, `${status} of ${use}`);
    t.assert.equal(error.status, status, String(error));
  }
  const dying = await t.token({ read: { runs: [id] } }, { expirationTime: "5s" });
  const follow = (h) => h.useRealtimeRun(id);
  const view = page.show(follow, { auth: dying });
  await view.until(({ run }) => run);
  const refusals = requests.filter((status) => status !== 200);
  t.assert.deepEqual(refusals, attempts.map(([status]) => status));
  await view.until(({ error }) => error?.status === 401, "the end of its token");
  t.assert.equal(view.last.run.id, id);
  const renewed = page.show(follow, { auth: await t.token({ read: { runs: [id] } }) });
  await renewed.until(({ run }) => run);
  t.assert.equal(renewed.last.error, undefined);
});

check("hooks show runs whose payload and output are too large for a request", async (t) => {
  const large = { text: "ü€🌱".repeat(30_000) };
  const id = t.isOld ? await t.trigger() : (await t.sdk.tasks.trigger("large", large)).id;
  const page = await t.page();
  const auth = await t.token({ read: { runs: [id] } });
  const view = page.show((h) => h.useRealtimeRun(id), { auth });
  await view.until(({ run }) => run?.payload);
  const isLarge = (value) => value?.text === large.text; // a difference would fill the screen
  if (!t.isOld) t.assert.ok(isLarge(view.last.run.payload));
  const upload = await t.request("PUT", `/api/v1/packets/${encodeURIComponent(`${id}/out.json`)}`);
  await fetch(upload.presignedUrl, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(large),
  });
  await t.finish(id, { output: upload.storagePath, outputType: "application/store" });
  await view.until(({ run }) => isLarge(run.output), "the output");
  // This hook leaves it to the page to fetch them.
  const retrieved = page.show((h) => h.useRun(id), { auth });
  await retrieved.until(({ run }) => run);
  const output = await fetch(retrieved.last.run.outputPresignedUrl);
  t.assert.ok(isLarge(await output.json()));
});
