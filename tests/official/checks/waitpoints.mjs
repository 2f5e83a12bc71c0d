// Wait tokens, from outside of a task.

import { check } from "../lib/check.mjs";

check.v4("wait.createToken, completeToken and retrieveToken", async (t) => {
  const { wait } = t.sdk;
  const token = await wait.createToken({ timeout: "1h", tags: ["a"], idempotencyKey: "k" });
  t.assert.equal((await wait.createToken({ idempotencyKey: "k" })).isCached, true);
  const waits = await wait.retrieveToken(token.id);
  t.assert.equal(waits.status, "WAITING");
  t.assert.ok(waits.timeoutAt > waits.createdAt);
  // By the token that came with it, as a browser would.
  await t.as(token.publicAccessToken, () => wait.completeToken(token.id, { ok: ["ü"] }));
  const done = await wait.retrieveToken(token.id);
  t.assert.equal(done.status, "COMPLETED");
  t.assert.deepEqual(done.output, { ok: ["ü"] });
  t.assert.equal(done.error, undefined);
});

check.v4("a wait token is completed by a call to its url", async (t) => {
  const token = await t.sdk.wait.createToken({});
  const answer = await fetch(token.url, { method: "POST", body: JSON.stringify({ n: 1 }) });
  t.assert.deepEqual(await answer.json(), { success: true });
  t.assert.deepEqual((await t.sdk.wait.retrieveToken(token.id)).output, { n: 1 });
});

check.v4("a wait token that timed out has an error", async (t) => {
  const token = await t.sdk.wait.createToken({ timeout: new Date(Date.now() - 1000) });
  const over = await t.sdk.wait.retrieveToken(token.id);
  t.assert.equal(over.status, "TIMED_OUT");
  t.assert.match(over.error.message, /timed out/);
});

check.v4("wait.listTokens filters and turns pages", async (t) => {
  const made = [];
  for (const tags of [["x"], ["y"], ["x"], ["x"]]) made.unshift(await t.sdk.wait.createToken({ tags }));
  const wanted = made.filter((_, place) => place !== 2).map(({ id }) => id);
  const listed = [];
  for await (const token of t.sdk.wait.listTokens({ tags: ["x"], status: "WAITING", limit: 2 })) {
    listed.push(token.id);
  }
  t.assert.deepEqual(listed, wanted);
});
