// The hooks that show streams, alone and beside their run.

import { check } from "../lib/check.mjs";

const NUMBERS = Array.from({ length: 200 }, (_, n) => ({ n, text: `größe ${n}\n` }));

check("useRealtimeRunWithStreams shows every part once and in order", async (t) => {
  const id = await t.trigger();
  const page = await t.page();
  await t.work(id, { status: "EXECUTING" });
  await t.stream(id, "before", ["a", "b"]);
  const completed = [];
  const options = {
    throttleInMs: 50,
    experimental_throttleInMs: 50,
    onComplete: (run) => completed.push(run.status),
  };
  const view = page.show((h) => h.useRealtimeRunWithStreams(id, options), {
    auth: await t.token({ read: { runs: [id] } }),
  });
  await view.until(({ run, streams }) => run && streams.before?.length === 2);
  await t.stream(id, "llm", NUMBERS);
  await view.until(({ streams }) => streams.llm?.length >= NUMBERS.length);
  t.assert.deepEqual(view.last.streams, { before: ["a", "b"], llm: NUMBERS });
  await t.finish(id);
  await view.until(({ run }) => run.finishedAt);
  await view.until(() => completed.length > 0, "onComplete");
  t.assert.deepEqual(completed, ["COMPLETED"]);
  t.assert.equal(view.last.error, undefined);
});

check.v4("useRealtimeStream shows a stream from where it is told to where it ends", async (t) => {
  const id = await t.trigger();
  const page = await t.page();
  const auth = await t.token({ read: { runs: [id] } });
  await t.work(id, { status: "EXECUTING" });
  await t.stream(id, "llm", [0, 1, 2]);
  const got = [];
  const show = (options) => page.show((h) => h.useRealtimeStream(id, "llm", options), { auth });
  const whole = show({ onData: (part) => got.push(part) });
  const second = show({ startIndex: 1, throttleInMs: 0 });
  const latest = show({ from: "latest" });
  const short = show({ maxParts: 2 });
  const impatient = show({ timeoutInSeconds: 1 });
  const batches = [];
  const behind = show({ lastEventId: "1", onParts: (parts) => batches.push(...parts) });
  const disabled = show({ enabled: false });
  const empty = page.show((h) => h.useRealtimeStream(id, "silent"), { auth });
  await whole.until(({ parts }) => parts.length === 3);
  await impatient.until(({ parts }) => parts.length === 3);
  await second.until(({ parts }) => parts.length === 2);
  await behind.until(({ parts }) => parts.length === 1);
  await t.stream(id, "llm", [3, 4]);
  await latest.until(({ parts }) => parts.length === 2);
  await whole.until(({ parts }) => parts.length === 5);
  await second.until(({ parts }) => parts.length === 4);
  await behind.until(({ parts }) => parts.length === 3);
  await short.until(({ parts }) => parts.at(-1) === 4);
  t.assert.deepEqual(whole.last.parts, [0, 1, 2, 3, 4]);
  t.assert.deepEqual(got, [0, 1, 2, 3, 4]);
  t.assert.deepEqual(second.last.parts, [1, 2, 3, 4]);
  t.assert.deepEqual(latest.last.parts, [3, 4]);
  t.assert.deepEqual(short.last.parts, [3, 4]);
  t.assert.deepEqual(batches.map(({ id, chunk }) => [id, chunk]), [["2", 2], ["3", 3], ["4", 4]]);
  t.assert.ok(batches.every(({ timestamp }) => Math.abs(Date.now() - timestamp) < 60_000));
  t.assert.equal(whole.last.lastEventId, "4");
  await t.finish(id);
  await t.ask("wait until nobody is connected");
  for (const view of [whole, second, latest, behind, short, impatient, disabled, empty]) {
    t.assert.equal(view.last.error, undefined);
  }
  t.assert.deepEqual(disabled.last.parts, []);
  t.assert.deepEqual(empty.last.parts, []);
});

check("hooks of strict mode, which come twice, show every part once", async (t) => {
  const id = await t.trigger("hello", { tags: ["a"] });
  const page = await t.page();
  const auth = await t.token({ read: { runs: [id], tags: ["a"] } });
  const show = (use) => page.show(use, { auth, strict: true });
  await t.work(id, { status: "EXECUTING" });
  await t.stream(id, "llm", [0, 1]);
  const run = show((h) => h.useRealtimeRun(id));
  const tagged = show((h) => h.useRealtimeRunsWithTag("a"));
  const beside = show((h) => h.useRealtimeRunWithStreams(id, { experimental_throttleInMs: 20 }));
  await run.until((shown) => shown.run);
  await tagged.until(({ runs }) => runs.length === 1);
  await beside.until(({ streams }) => streams.llm?.length >= 2);
  const alone = t.isOld ? undefined : show((h) => h.useRealtimeStream(id, "llm"));
  await alone?.until(({ parts }) => parts.length >= 2);
  await t.stream(id, "llm", [2]);
  await beside.until(({ streams }) => streams.llm.at(-1) === 2);
  t.assert.deepEqual(beside.last.streams.llm, [0, 1, 2]);
  await alone?.until(({ parts }) => parts.at(-1) === 2);
  t.assert.deepEqual(alone?.last.parts ?? [0, 1, 2], [0, 1, 2]);
  await t.finish(id);
  await run.until((shown) => shown.run.finishedAt);
  await tagged.until(({ runs }) => runs[0].finishedAt);
});

check("views that go leave no request behind", async (t) => {
  const items = [{ task: "one", options: { tags: ["a"] } }];
  const batch = await t.request("POST", "/api/v1/tasks/batch", { items });
  const id = batch.runs[0].id;
  const page = await t.page();
  const auth = await t.token({ read: { runs: true, tags: ["a"] } });
  await t.work(id, { status: "EXECUTING" });
  await t.stream(id, "llm", [0]);
  const uses = [
    (h) => h.useRealtimeRun(id),
    (h) => h.useRealtimeRunWithStreams(id),
    (h) => h.useRealtimeRunsWithTag("a"),
    (h) => h.useRealtimeBatch(batch.id),
  ];
  if (!t.isOld) uses.push((h) => h.useRealtimeStream(id, "llm"));
  const views = uses.map((use) => page.show(use, { auth }));
  for (const view of views) {
    await view.until(({ run, runs, parts }) => run || runs?.length || parts?.length);
  }
  for (const view of views) view.leave();
  await t.ask("wait until nobody is connected");
  // And those that are gone before anything came.
  const fleeting = uses.map((use) => page.show(use, { auth }));
  for (const view of fleeting) await view.until(() => true);
  for (const view of fleeting) view.leave();
  await t.ask("wait until nobody is connected");
});

check.v4("a stream that is shown survives a restart of the gateway", async (t) => {
  const id = await t.trigger();
  const page = await t.page();
  const auth = await t.token({ read: { runs: [id] } });
  await t.work(id, { status: "EXECUTING" });
  await t.stream(id, "llm", [0, 1]);
  const beside = page.show((h) => h.useRealtimeRunWithStreams(id), { auth });
  const alone = page.show((h) => h.useRealtimeStream(id, "llm"), { auth });
  await beside.until(({ streams }) => streams.llm?.length === 2);
  await alone.until(({ parts }) => parts.length === 2);
  await t.ask("restart the gateway");
  await t.stream(id, "llm", [2, 3]);
  await beside.until(({ streams }) => streams.llm.length === 4);
  await alone.until(({ parts }) => parts.length === 4);
  t.assert.deepEqual(beside.last.streams.llm, [0, 1, 2, 3]);
  t.assert.deepEqual(alone.last.parts, [0, 1, 2, 3]);
  await t.finish(id);
  await beside.until(({ run }) => run.finishedAt);
  t.assert.equal(beside.last.error ?? alone.last.error, undefined);
});

check("runs that are shown survive a restart of the gateway", async (t) => {
  const id = await t.trigger("hello", { tags: ["a"] });
  const page = await t.page();
  const auth = await t.token({ read: { runs: true, tags: ["a"] } });
  const views = [
    page.show((h) => h.useRealtimeRun(id), { auth }),
    page.show((h) => h.useRealtimeRunWithStreams(id), { auth }),
    page.show((h) => h.useRealtimeRunsWithTag("a"), { auth }),
  ];
  const run = (shown) => shown.run ?? shown.runs?.[0];
  for (const view of views) await view.until(run);
  await t.ask("restart the gateway");
  await t.work(id, { status: "EXECUTING" });
  for (const view of views) await view.until((shown) => run(shown).status === "EXECUTING");
  await t.ask(`finish ${id} while the gateway is away`);
  for (const view of views) await view.until((shown) => run(shown).finishedAt);
  for (const view of views) t.assert.equal(view.last.error, undefined);
});

check.v4("a hidden tab asks for nothing, and catches up when it is seen again", async (t) => {
  const id = await t.trigger();
  const page = await t.page();
  const addresses = t.watchAddresses("/realtime/");
  const auth = await t.token({ read: { runs: [id] } });
  const view = page.show((h) => h.useRealtimeRun(id), { auth });
  await view.until(({ run }) => run);
  while (!addresses.at(-1).searchParams.has("live")) await t.pause(10);
  page.setHidden(true);
  await t.ask("wait until nobody is connected");
  const before = addresses.length;
  await t.work(id, { status: "EXECUTING" });
  await t.setMetadata(id, { while: "hidden" });
  t.assert.equal(addresses.length, before);
  page.setHidden(false);
  await view.until(({ run }) => run.metadata?.while === "hidden");
  const { searchParams } = addresses[before];
  t.assert.equal(searchParams.has("live"), false);
  t.assert.notEqual(searchParams.get("offset"), "-1");
  await t.finish(id);
  await view.until(({ run }) => run.finishedAt);
  t.assert.equal(view.last.run.status, "COMPLETED");
});

check("what is shown survives the death of Postgres", async (t) => {
  const id = await t.trigger("hello", { tags: ["a"] });
  const page = await t.page();
  const auth = await t.token({ read: { runs: [id], tags: ["a"] } });
  await t.work(id, { status: "EXECUTING" });
  await t.stream(id, "llm", [0]);
  const requests = t.watchRequests("/realtime/");
  const run = page.show((h) => h.useRealtimeRun(id), { auth });
  const tagged = page.show((h) => h.useRealtimeRunsWithTag("a"), { auth });
  const beside = page.show((h) => h.useRealtimeRunWithStreams(id), { auth });
  const subscription = t.sdk.runs.subscribeToRun(id);
  const iterator = subscription[Symbol.asyncIterator]();
  await run.until((shown) => shown.run);
  await tagged.until(({ runs }) => runs.length === 1);
  await beside.until(({ streams }) => streams.llm?.length === 1);
  await t.until(iterator, () => true);
  await t.ask("kill Postgres");
  await t.eventually(() => t.setMetadata(id, { after: true }));
  await run.until((shown) => shown.run.metadata?.after);
  await tagged.until(({ runs }) => runs[0].metadata?.after);
  await t.until(iterator, ({ metadata }) => metadata?.after);
  await t.stream(id, "llm", [1]);
  await beside.until(({ streams }) => streams.llm.length === 2);
  t.assert.deepEqual(beside.last.streams.llm, [0, 1]);
  await t.finish(id);
  await beside.until((shown) => shown.run.finishedAt);
  await t.until(iterator, ({ finishedAt }) => finishedAt);
  subscription.unsubscribe();
  const refusals = requests.filter((status) => status >= 400 && status < 500 && status !== 429);
  t.assert.deepEqual(refusals, []);
});
