// Payloads and outputs that are too large for a request.

import { check } from "../lib/check.mjs";

const LARGE = { text: "ü€🌱".repeat(30_000) };

check.v4("a large payload is put into the object store and comes back", async (t) => {
  const { id } = await t.sdk.tasks.trigger("large", LARGE);
  const raw = await t.request("GET", `/api/v3/runs/${id}`);
  t.assert.ok(raw.payloadPresignedUrl);
  t.assert.equal(raw.payload, undefined);
  t.assert.deepEqual((await t.sdk.runs.retrieve(id)).payload, LARGE);
});

check.v4("a run with a large payload is seen by its subscribers", async (t) => {
  const { id } = await t.sdk.tasks.trigger("large", LARGE);
  for await (const run of t.sdk.runs.subscribeToRun(id)) {
    t.assert.deepEqual(run.payload, LARGE);
    break;
  }
});

check("a large output is read from the object store", async (t) => {
  const id = await t.trigger();
  const upload = await t.request("PUT", `/api/v1/packets/${encodeURIComponent(`${id}/out.json`)}`);
  const stored = await fetch(upload.presignedUrl, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(LARGE),
  });
  t.assert.equal(stored.status, 200);
  await t.work(id, { status: "EXECUTING" });
  await t.finish(id, { output: upload.storagePath, outputType: "application/store" });
  t.assert.deepEqual((await t.sdk.runs.retrieve(id)).output, LARGE);
});
