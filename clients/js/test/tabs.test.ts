// Tabs and workers that come, go and die, in any interleaving with changes, losses and token
// changes. The browser's own are tested in Chromium: tests/clients_js/test_tabs.py.

import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  createClient,
  type Client,
  type ClientOptions,
  type RunsFeed,
  type StreamFeed,
} from "../src/index.js";
import { Browser, Owner } from "./support/browser.js";
import { ModelGateway } from "./support/gateway.js";

const tokenOf = (scope: string, n = 0) =>
  `h.${btoa(JSON.stringify({ sub: "env_1", scopes: [scope] }))}.s${String(n)}`;

let gateway: ModelGateway;
let browser: Browser;

beforeEach(async () => {
  await import("../src/tab-link.js"); // which fake timers do not wait for
  vi.useFakeTimers();
});

/** A browser anew, and what it has of tabs in common. */
function begin(): void {
  vi.clearAllTimers(); // of a failure that is shrunk
  gateway = new ModelGateway();
  vi.unstubAllGlobals();
  browser = new Browser();
  vi.stubGlobal("setTimeout", browser.setTimeout);
  vi.stubGlobal("document", { addEventListener: () => undefined, visibilityState: "visible" });
  vi.stubGlobal("BroadcastChannel", browser.BroadcastChannel);
  vi.stubGlobal("SharedWorker", browser.SharedWorker);
  vi.stubGlobal("WebSocket", browser.owned(gateway.WebSocket));
  vi.stubGlobal("navigator", { locks: browser.locks });
}

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

interface Tab {
  readonly owner: Owner;
  readonly client: Client;
  readonly list: RunsFeed;
  readonly stream: StreamFeed;
}

function openTab(
  options: Pick<ClientOptions, "shareTabs"> = {},
  token: () => string = () => tokenOf("read:runs"),
): Tab {
  const owner = new Owner();
  return browser.as(owner, () => {
    const client = createClient({
      baseURL: "http://gateway",
      transports: ["websocket"],
      token,
      ...options,
    });
    const [list, stream] = [client.runs({}), client.stream("run_1", "llm")];
    for (const feed of [list, stream]) feed.subscribe(() => undefined);
    return { owner, client, list, stream };
  });
}

async function settle(): Promise<void> {
  for (let n = 0; n < 80; n++) {
    await vi.advanceTimersByTimeAsync(500);
    gateway.deliver();
  }
}

const some = <What extends string>(what: What, n: fc.Arbitrary<number> = fc.constant(0)) =>
  fc.record({ do: fc.constant(what), n });

const event = fc.oneof(
  { weight: 4, arbitrary: some("change", fc.nat(3)) },
  { weight: 1, arbitrary: some("delete", fc.nat(3)) },
  { weight: 3, arbitrary: some("append", fc.nat(5)) },
  { weight: 5, arbitrary: some("deliver", fc.nat(6)) },
  { weight: 4, arbitrary: some("wait", fc.constantFrom(1, 30, 2000)) },
  { weight: 1, arbitrary: some("cut", fc.constantFrom(1006, 4001, 4054)) },
  { weight: 1, arbitrary: some("new token") },
  { weight: 2, arbitrary: some("open a tab") },
  { weight: 1, arbitrary: some("open a tab without worker") },
  { weight: 2, arbitrary: some("close a client", fc.nat(4)) },
  { weight: 2, arbitrary: some("kill a tab", fc.nat(4)) },
  { weight: 1, arbitrary: some("kill the workers") },
  { weight: 1, arbitrary: some("forbid or allow workers") },
);

test("all tabs show what is, over one connection, whichever of them come, go and die", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 40, size: "max" }), async (events) => {
      begin();
      let tokens = 0;
      const token = () => tokenOf("read:runs", tokens);
      gateway.tokens.set(token(), undefined);
      const tabs = [openTab({}, token)];
      let appended = 0;
      for (const { do: what, n } of events) {
        switch (what) {
          case "change":
            gateway.change(`run_${String(n)}`);
            break;
          case "delete":
            gateway.delete(`run_${String(n)}`);
            break;
          case "append":
            for (let i = 0; i < n; i++) gateway.append("llm", appended++);
            break;
          case "deliver":
            gateway.deliver(n);
            break;
          case "wait":
            await vi.advanceTimersByTimeAsync(n);
            break;
          case "cut":
            gateway.cut(n, n === 4001 ? "expired_token" : "");
            break;
          case "new token":
            gateway.tokens.delete(token());
            gateway.expired.add(token());
            tokens += 1;
            gateway.tokens.set(token(), undefined);
            break;
          case "open a tab":
            if (tabs.length < 4) tabs.push(openTab({}, token));
            break;
          case "open a tab without worker":
            if (tabs.length < 4) tabs.push(openTab({ shareTabs: "locks" }, token));
            break;
          case "close a client":
            tabs.splice(n, 1)[0]?.client.close();
            break;
          case "kill a tab":
            for (const { owner } of tabs.splice(n, 1)) browser.kill(owner);
            break;
          case "kill the workers":
            for (const worker of browser.workers.values()) browser.kill(worker);
            break;
          case "forbid or allow workers":
            browser.mayWork = !browser.mayWork;
        }
      }
      if (tabs.length === 0) tabs.push(openTab({}, token));
      await settle();
      const truth = [...gateway.runs.keys()].sort();
      const parts = Array.from({ length: appended }, (_, n) => n);
      for (const { list, stream } of tabs) {
        const { status, runs } = list.getSnapshot();
        expect([status, runs.map(({ id }) => id).sort()]).toEqual(["live", truth]);
        for (const run of runs) expect(run).toEqual(gateway.runs.get(run.id)?.run);
        expect(stream.getSnapshot().parts).toEqual(parts);
      }
      expect(gateway.sockets.size).toBe(1);
      // What gone tabs followed is followed no more.
      expect(gateway.followers.size).toBe(2 * tabs.length);
      for (const { client } of tabs) client.close();
      await vi.advanceTimersByTimeAsync(5000);
      expect([gateway.sockets.size, vi.getTimerCount()]).toEqual([0, 0]);
    }),
    { numRuns: 100 },
  );
}, 60_000);

const ways = () =>
  tabs.map(({ client }) => {
    const { status, via } = client.connection.getSnapshot();
    return [status, via];
  });
let tabs: Tab[];

beforeEach(() => {
  begin();
  gateway.tokens.set(tokenOf("read:runs"), undefined);
  gateway.tokens.set(tokenOf("read:tags"), undefined);
  tabs = [];
});

test("a worker has the connection, and says to all tabs how it is", async () => {
  tabs = [openTab(), openTab()];
  await settle();
  expect(ways()).toEqual([
    ["open", "worker"],
    ["open", "worker"],
  ]);
  const [first, second] = tabs;
  browser.kill((first as Tab).owner);
  gateway.change("run_1");
  await settle();
  expect(second?.list.getSnapshot().runs).toHaveLength(1);
  expect(gateway.connections).toBe(1); // it died with no tab
});

test("a worker that dies is replaced by a tab", async () => {
  tabs = [openTab(), openTab()];
  await settle();
  for (const worker of browser.workers.values()) browser.kill(worker);
  await settle();
  expect(ways()).toEqual([
    ["open", undefined],
    ["open", "tab"],
  ]);
  expect(gateway.sockets.size).toBe(1);
});

test("a worker that never begins is not waited for", async () => {
  vi.stubGlobal(
    "SharedWorker",
    class {
      port = { postMessage: () => undefined };
    },
  );
  tabs = [openTab()];
  await settle();
  expect(ways()).toEqual([["open", undefined]]);
});

test("a worker asks another tab when one gives no token", async () => {
  let isSignedIn = true;
  const fails = () => {
    if (!isSignedIn) throw new Error("signed out");
    return tokenOf("read:runs");
  };
  tabs = [openTab(), openTab({}, fails)]; // the one who spoke last is asked first
  await settle();
  isSignedIn = false;
  gateway.tokens.delete(tokenOf("read:runs"));
  gateway.expired.add(tokenOf("read:runs"));
  gateway.cut(4001, "expired_token");
  await vi.advanceTimersByTimeAsync(100);
  gateway.tokens.set(tokenOf("read:runs"), undefined);
  await settle();
  expect(tabs.map(({ list }) => list.getSnapshot().status)).toEqual(["live", "live"]);
});

test("a tab whose token has other rights now leaves the worker to the others", async () => {
  let scope = "read:runs";
  tabs = [openTab({}, () => tokenOf(scope)), openTab()]; // the first is the first to ask anew
  await settle();
  scope = "read:tags";
  gateway.cut(4001, "expired_token");
  await settle();
  expect(ways()).toEqual([
    ["open", "worker"],
    ["open", "worker"],
  ]);
  expect([gateway.sockets.size, browser.workers.size]).toEqual([2, 2]);
});

test.each([{ shareTabs: true }, { shareTabs: "locks" }] as const)(
  "tabs whose tokens have other rights share nothing: %o",
  async (options) => {
    tabs = ["read:runs", "read:tags", "read:runs"].map((scope) =>
      openTab(options, () => tokenOf(scope)),
    );
    await settle();
    expect(gateway.sockets.size).toBe(2);
  },
);

test("a client with a WebSocket or fetch of its own starts no worker", async () => {
  const owner = new Owner();
  const client = browser.as(owner, () =>
    createClient({
      baseURL: "http://gateway",
      token: () => tokenOf("read:runs"),
      WebSocket: globalThis.WebSocket,
    }),
  );
  browser.as(owner, () => client.runs({}).subscribe(() => undefined));
  await settle();
  expect(browser.workers.size).toBe(0);
  expect(gateway.sockets.size).toBe(1);
});
