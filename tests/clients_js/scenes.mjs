// What is played with the built package against a real gateway, over each transport.

import { Chat } from "../../clients/js/node_modules/@ai-sdk/react/dist/index.js";

export const scenes = {
  async "a run is followed to its end through a restart of the gateway"(t) {
    const id = await t.trigger();
    const feed = t.client().run(id);
    const whole = t.until(feed, ({ status }) => status === "ended");
    await t.until(feed, ({ status }) => status === "live");
    await t.ask("restart");
    await t.work(id, {
      status: "COMPLETED_SUCCESSFULLY",
      output: { done: true },
    });
    const last = (await whole).at(-1);
    t.assert.equal(last.run.status, "COMPLETED");
    t.assert.deepEqual(last.run.output, { done: true });
    t.assert.equal(last.endReason, "finished");
    t.assert.equal(last.resets, 0);
  },

  async "a burst over connections that are cut misses nothing and steps back nowhere"(
    t,
  ) {
    const ids = await Promise.all(
      Array.from({ length: 8 }, () => t.trigger({ tags: ["burst"] })),
    );
    const client = t.client();
    const feed = client.runs({ tags: ["burst"] });
    const revisions = new Map();
    feed.subscribe(() => {
      for (const { id, revision } of feed.getSnapshot().runs) {
        t.assert.ok(revision >= (revisions.get(id) ?? 0), "stepped back");
        revisions.set(id, revision);
      }
    });
    await t.until(feed, ({ status }) => status === "live");
    for (let round = 1; round <= 5; round++) {
      const burst = ids.flatMap((id) =>
        Array.from({ length: 5 }, (_, n) =>
          t.request("PUT", `/api/v1/runs/${id}/metadata`, {
            metadata: { round, n },
          }),
        ),
      );
      await Promise.allSettled([...burst, t.ask("cut the readers")]);
    }
    for (const id of ids) {
      await t.request("PUT", `/api/v1/runs/${id}/metadata`, {
        metadata: { last: id },
      });
    }
    const isLast = ({ status, runs }) =>
      status === "live" &&
      runs.length === 8 &&
      runs.every(({ id, metadata }) => metadata.last === id);
    const seen = await t.until(feed, isLast);
    t.assert.equal(seen.at(-1).resets, 0);
    t.assert.ok(client.connection.getSnapshot().reconnects >= 1);
  },

  async "tokens of three seconds are replaced, and nothing is missed"(t) {
    const id = await t.trigger();
    let minted = 0;
    const client = t.client({
      token: () => {
        minted += 1;
        return t.mint([`read:runs:${id}`], 3);
      },
    });
    const feed = client.run(id);
    const seen = t.until(feed, ({ run }) => run?.metadata?.step === 20);
    for (let step = 1; step <= 20; step++) {
      await t.request("PUT", `/api/v1/runs/${id}/metadata`, {
        metadata: { step },
      });
      await new Promise((resolve) => setTimeout(resolve, 350));
    }
    const snapshots = await seen;
    t.assert.ok(minted >= 3, `only ${minted} tokens were asked for`);
    t.assert.ok(snapshots.every(({ status }) => status !== "failed"));
    // The connection goes on under the newer token.
    t.assert.equal(client.connection.getSnapshot().reconnects, 0);
  },

  async "a stream of ten thousand chunks arrives byte for byte, over cuts, fast and slow"(
    t,
  ) {
    const id = await t.trigger();
    const chunks = Array.from(
      { length: 10_000 },
      (_, n) => `${n} größe 😀 "\\\u0000\n`,
    );
    const client = t.client();
    const read = { fast: [], slow: [], text: "" };
    const follow = async (into, pause) => {
      for await (const part of client.stream(id, "llm")) {
        into.push(part);
        if (pause && into.length % 2000 === 0)
          await new Promise((done) => setTimeout(done, pause));
      }
    };
    const reading = Promise.all([
      follow(read.fast, 0),
      follow(read.slow, 100),
      (async () => {
        for await (const piece of client.stream(id, "llm").text())
          read.text += piece;
      })(),
    ]);
    for (let from = 0; from < chunks.length; from += 1000) {
      await t.append(id, "llm", chunks.slice(from, from + 1000));
      if (from % 3000 === 2000) await t.ask("cut the readers");
    }
    await t.closeStream(id, "llm");
    await reading;
    t.assert.deepEqual(read.fast, chunks);
    t.assert.deepEqual(read.slow, chunks);
    t.assert.equal(read.text, chunks.join(""));
    const late = client.stream(id, "llm");
    const [last] = (
      await t.until(late, ({ status }) => status === "ended")
    ).slice(-1);
    t.assert.equal(last.text, chunks.join(""));
    t.assert.deepEqual(last.parts, chunks.slice(-1000));
  },

  async "what may not be followed says why"(t) {
    const [mine, other] = [await t.trigger(), await t.trigger()];
    const token = await t.mint([`read:runs:${mine}`], 600);
    const client = t.client({ token });
    const code = async (feed) =>
      (await t.until(feed, ({ status }) => status === "failed")).at(-1).error
        .code;
    t.assert.equal(await code(client.run(other)), "insufficient_scope");
    t.assert.equal(await code(client.runs({})), "insufficient_scope");
    t.assert.equal(
      await code(t.client({ token: `${token}x` }).run(mine)),
      "invalid_token",
    );
    t.assert.equal(await code(t.client().run("run_0")), "not_found");
    await t.until(client.run(mine), ({ status }) => status === "live");
  },

  async "what is triggered can be followed with the token that comes with it, and listed"(
    t,
  ) {
    const client = t.client();
    const handle = await client.trigger("hello", { n: 2 }, { tags: ["mine"] });
    const feed = t.client({ token: handle.publicAccessToken }).run(handle.id, {
      skipColumns: ["payload"],
    });
    const [last] = (
      await t.until(feed, ({ status }) => status === "live")
    ).slice(-1);
    t.assert.deepEqual(last.run.tags, ["mine"]);
    t.assert.ok(!("payload" in last.run));
    const { data } = await client.list({
      tag: "mine",
      status: ["QUEUED", "EXECUTING"],
    });
    t.assert.deepEqual(
      data.map(({ id }) => id),
      [handle.id],
    );
    const states = [];
    const reading = (async () => {
      for await (const run of client.run(handle.id)) states.push(run.status);
    })();
    await t.work(handle.id, { status: "COMPLETED_SUCCESSFULLY" });
    await reading;
    t.assert.equal(states.at(-1), "COMPLETED");
  },

  async "a chat of the AI SDK goes on through a restart and a reload, and is stopped"(
    t,
  ) {
    const id = await t.trigger();
    const key = "ui";
    const token = await t.mint([`read:runs:${id}`], 600);
    const transport = t.chatTransport({
      start: async () => ({ runId: id, token, key }),
      resume: async () => ({ runId: id, token, key }),
      stop: (run) => t.request("POST", `/api/v2/runs/${run.runId}/cancel`),
    });
    const words = (...deltas) =>
      deltas.map((delta) => ({ type: "text-delta", id: "t", delta }));
    const shown = (chat) =>
      chat.lastMessage?.parts.map(({ text }) => text).join("");
    const shows = (chat, text) =>
      t.until(
        {
          getSnapshot: () => shown(chat),
          subscribe: (listener) => chat["~registerMessagesCallback"](listener),
        },
        (now) => now === text,
      );

    const chat = new Chat({ id: "chat", transport });
    const answered = chat.sendMessage({ text: "Hi" });
    await t.append(id, key, [
      { type: "start", messageId: "answer" },
      { type: "text-start", id: "t" },
      ...words("Once"),
    ]);
    await shows(chat, "Once");
    await t.ask("restart");
    await t.append(id, key, words(" upon"));
    await shows(chat, "Once upon");

    const loaded = new Chat({
      id: "chat",
      transport,
      messages: [chat.messages[0]],
    });
    const resumed = loaded.resumeStream();
    await shows(loaded, "Once upon");
    await t.append(id, key, words(" a time"));
    await transport.stopRun("chat");
    await Promise.all([answered, resumed]);
    for (const each of [chat, loaded]) {
      t.assert.equal(each.status, "ready");
      t.assert.equal(shown(each), "Once upon a time");
      t.assert.equal(each.messages.length, 2);
    }
  },
};
