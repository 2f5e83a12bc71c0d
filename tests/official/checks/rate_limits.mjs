// Rate limits: a refused request is tried again when the gateway said, and not before.

import { check } from "../lib/check.mjs";

const inTurn = (statuses) => !statuses.some((status, n) => status === 429 && statuses[n + 1] === 429);

check("a rate limit is waited out", async (t) => {
  const id = await t.trigger();
  await t.ask("allow each key 1/0.5 requests");
  const statuses = t.watchRequests(`/runs/${id}`);
  for (let n = 0; n < 3; n += 1) t.assert.equal((await t.sdk.runs.retrieve(id)).id, id);
  t.assert.ok(statuses.includes(429), String(statuses));
  t.assert.ok(inTurn(statuses), `tried again too early: ${statuses}`);
  t.assert.equal(statuses.filter((status) => status === 200).length, 3);
});

check("a rate limit that is not waited out says what is wrong", async (t) => {
  const id = await t.trigger();
  await t.ask("allow each key 1/600 requests");
  t.assert.equal((await t.sdk.runs.retrieve(id)).id, id);
  await t.assert.rejects(t.sdk.runs.retrieve(id, { retry: { maxAttempts: 1 } }), (error) => {
    t.assert.equal(error.status, 429);
    t.assert.match(error.message, /used up; the next one is allowed in (599|600) s/);
    return true;
  });
});
