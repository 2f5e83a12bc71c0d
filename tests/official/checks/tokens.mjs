// Keys and tokens: who signs them, how long they hold, how often they can be used.

import { check } from "../lib/check.mjs";

const iterate = (subscription) => subscription[Symbol.asyncIterator]();
const claimsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

check("a root key signs tokens by itself, with what the gateway says of its environment", async (t) => {
  const id = await t.trigger();
  const asked = t.watchAddresses("/");
  const token = await t.sdk.auth.createPublicToken({ scopes: { read: { runs: [id] } } });
  t.assert.deepEqual(asked.map(({ pathname }) => pathname), ["/api/v1/auth/jwt/claims"]);
  const claims = claimsOf(token);
  t.assert.equal(claims.pub, true);
  t.assert.equal(claims.iss, "https://id.trigger.dev");
  t.assert.equal(claims.exp - claims.iat, 15 * 60);
  await t.as(token, async () => t.assert.equal((await t.sdk.runs.retrieve(id)).id, id));
});

check.v4("an additional key has its tokens signed by the gateway", async (t) => {
  const id = await t.trigger();
  const key = await t.additionalKey();
  const paths = t.watchRequests("/auth/");
  await t.as(key, async () => {
    const token = await t.sdk.auth.createPublicToken({ scopes: { read: { runs: [id] } } });
    t.assert.deepEqual(paths, [200]);
    t.assert.equal(claimsOf(token).pub, true);
    await t.as(token, async () => t.assert.equal((await t.sdk.runs.retrieve(id)).id, id));
    // Without scopes there is nothing that the gateway could sign.
    await t.assert.rejects(() => t.sdk.auth.createPublicToken());
    const once = await t.sdk.auth.createTriggerPublicToken("hello");
    t.assert.equal(claimsOf(once).otu, true);
  });
});

check.v4("an additional key triggers, and gets the tokens that it cannot sign", async (t) => {
  await t.as(await t.additionalKey(), async () => {
    const handle = await t.sdk.tasks.trigger("hello", { n: 1 });
    await t.as(handle.publicAccessToken, async () => {
      t.assert.equal((await t.sdk.runs.retrieve(handle.id)).id, handle.id);
    });
    const batch = await t.sdk.tasks.batchTrigger("hello", [{ payload: 1 }]);
    await t.as(batch.publicAccessToken, async () => {
      await t.until(iterate(t.sdk.runs.subscribeToBatch(batch.batchId)), () => true);
    });
    const token = await t.sdk.wait.createToken({});
    await t.as(token.publicAccessToken, () => t.sdk.wait.completeToken(token.id, {}));
  });
});

check("a rotated key and its tokens work until the grace ends", async (t) => {
  const id = await t.trigger();
  const token = await t.sdk.auth.createPublicToken({ scopes: { read: { runs: [id] } } });
  await t.ask("rotate the key");
  await t.sdk.runs.retrieve(id);
  await t.as(token, () => t.sdk.runs.retrieve(id));
  // What the old key signs now is as good as before.
  const later = await t.sdk.auth.createPublicToken({
    scopes: { read: { runs: [id] } },
    expirationTime: "1h",
  });
  const runs = await t.as(later, async () => iterate(t.sdk.runs.subscribeToRun(id)));
  await t.until(runs, () => true);
  await t.ask("end the grace");
  await t.fails(401, () => t.sdk.runs.retrieve(id));
  for (const each of [token, later]) {
    await t.as(each, () => t.fails(401, () => t.sdk.runs.retrieve(id)));
  }
});

check("a one-time token triggers once", async (t) => {
  const tokens = [];
  // Equal claims in one second make equal tokens: they differ by their expiry.
  for (const expirationTime of ["10m", "11m"]) {
    tokens.push(await t.sdk.auth.createTriggerPublicToken("hello", { expirationTime }));
  }
  for (const token of tokens) {
    await t.as(token, async () => {
      await t.fails(403, () => t.sdk.tasks.trigger("other", {}));
      const handle = await t.sdk.tasks.trigger("hello", {});
      await t.fails(422, () => t.sdk.tasks.trigger("hello", {}));
      // The token that came back follows the run; the one that was spent does not.
      await t.as(handle.publicAccessToken, () => t.sdk.runs.retrieve(handle.id));
      await t.fails(403, () => t.sdk.runs.retrieve(handle.id));
    });
  }
});

check("a one-time token for batches triggers one batch", async (t) => {
  const token = await t.sdk.auth.createBatchTriggerPublicToken(["a", "b"]);
  await t.as(token, async () => {
    const items = [{ payload: 1 }, { payload: 2 }];
    await t.fails(403, () => t.sdk.tasks.batchTrigger("c", items));
    const batch = await t.sdk.tasks.batchTrigger("a", items);
    t.assert.match(batch.batchId, /^batch_/);
    await t.fails(422, () => t.sdk.tasks.batchTrigger("b", items));
  });
});

check.v4("in a browser the token that comes with a run follows it", async (t) => {
  const token = await t.sdk.auth.createTriggerPublicToken("hello");
  const exposed = [];
  const plainFetch = globalThis.fetch;
  globalThis.fetch = async (input, init) => {
    const answer = await plainFetch(input, init);
    exposed.push(answer.headers.get("access-control-expose-headers"));
    return answer;
  };
  globalThis.window = { document: {} }; // what the client knows a browser by
  await t.as(token, async () => {
    const handle = await t.sdk.tasks.trigger("hello", { n: 1 });
    t.assert.match(exposed[0], /^\*$|x-trigger-jwt/);
    t.assert.notEqual(handle.publicAccessToken, token);
    await t.as(handle.publicAccessToken, async () => {
      await t.until(iterate(t.sdk.runs.subscribeToRun(handle.id)), () => true);
      await t.request("POST", `/realtime/v1/streams/${handle.id}/input/chat`, { data: 1 }, {
        token: handle.publicAccessToken,
      });
    });
  });
});

check("a token that may trigger may not do more", async (t) => {
  const id = await t.trigger();
  const token = await t.sdk.auth.createTriggerPublicToken("hello", { multipleUse: true });
  await t.as(token, async () => {
    for (const n of [1, 2]) t.assert.ok((await t.sdk.tasks.trigger("hello", { n })).id);
    await t.fails(403, () => t.sdk.runs.retrieve(id));
    await t.fails(403, () => t.sdk.runs.list());
    await t.fails(403, () => t.sdk.runs.cancel(id));
    await t.fails(401, () => t.sdk.runs.replay(id));
  });
});

check.v4("what a token withholds stays withheld from the token that it gets", async (t) => {
  const token = await t.sdk.auth.createTriggerPublicToken("hello", {
    realtime: { skipColumns: ["payload"] },
  });
  await t.as(token, async () => {
    const handle = await t.sdk.tasks.trigger("hello", { secret: true });
    await t.as(handle.publicAccessToken, async () => {
      const [run] = await t.until(iterate(t.sdk.runs.subscribeToRun(handle.id)), () => true);
      t.assert.equal(run.payload, undefined);
      t.assert.equal((await t.sdk.runs.retrieve(handle.id)).payload, undefined);
    });
  });
});

check("expirationTime is a span, a date, or Unix time in seconds", async (t) => {
  const inAnHour = Math.floor(Date.now() / 1000) + 3600;
  for (const expirationTime of ["1h", new Date(inAnHour * 1000), inAnHour]) {
    const token = await t.sdk.auth.createPublicToken({ scopes: { read: { runs: true } }, expirationTime });
    t.assert.ok(Math.abs(claimsOf(token).exp - inAnHour) < 60);
    await t.as(token, () => t.sdk.runs.list().then((page) => t.assert.equal(page.data.length, 0)));
  }
});
