// Tabs that come and go, in any interleaving with changes and losses. Their real deaths, and the
// browser's own locks and channels, are tested in Chromium: tests/clients_js/test_tabs.py.

import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createClient, type Client, type RunsFeed, type StreamFeed } from "../src/index.js";
import { ModelGateway } from "./support/gateway.js";

/** Channels of one browser: what is posted reaches all others of that name, a little later. */
class Channels {
  readonly #open = new Map<
    string,
    Set<{ onmessage: ((event: { data: unknown }) => void) | null }>
  >();

  get BroadcastChannel() {
    const open = this.#open;
    return class {
      onmessage: ((event: { data: unknown }) => void) | null = null;
      readonly #name: string;

      constructor(name: string) {
        this.#name = name;
        open.set(name, (open.get(name) ?? new Set()).add(this));
      }

      postMessage(data: unknown): void {
        const others = [...(open.get(this.#name) ?? [])].filter((other) => other !== this);
        const copy = structuredClone(data);
        setTimeout(() => {
          for (const other of others) {
            if (open.get(this.#name)?.has(other)) other.onmessage?.({ data: copy });
          }
        }, 0);
      }

      close(): void {
        open.get(this.#name)?.delete(this);
      }
    };
  }
}

/** Locks of one browser: one holder each, the others wait in line. */
class Locks {
  readonly #lines = new Map<string, Promise<unknown>>();

  async request(
    name: string,
    { signal }: { signal: AbortSignal },
    hold: () => Promise<void>,
  ): Promise<void> {
    const before = this.#lines.get(name) ?? Promise.resolve();
    const mine = before.then(() => (signal.aborted ? undefined : hold()));
    this.#lines.set(name, mine);
    await mine;
  }
}

const token = (scope: string) => `h.${btoa(JSON.stringify({ sub: "env_1", scopes: [scope] }))}.s`;

beforeEach(async () => {
  await import("../src/tab-link.js"); // which fake timers do not wait for
  vi.useFakeTimers();
  vi.stubGlobal("document", { addEventListener: () => undefined, visibilityState: "visible" });
  vi.stubGlobal("BroadcastChannel", new Channels().BroadcastChannel);
  vi.stubGlobal("navigator", { locks: new Locks() });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

interface Tab {
  readonly client: Client;
  readonly list: RunsFeed;
  readonly stream: StreamFeed;
}

function openTab(gateway: ModelGateway, scope = "read:runs"): Tab {
  gateway.tokens.set(token(scope), undefined);
  const client = createClient({
    baseURL: "http://gateway",
    token: () => token(scope),
    transports: ["websocket"],
    WebSocket: gateway.WebSocket,
  });
  const [list, stream] = [client.runs({}), client.stream("run_1", "llm")];
  for (const feed of [list, stream]) feed.subscribe(() => undefined);
  return { client, list, stream };
}

async function settle(gateway: ModelGateway): Promise<void> {
  for (let n = 0; n < 80; n++) {
    await vi.advanceTimersByTimeAsync(500);
    gateway.deliver();
  }
}

const event = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("change"), n: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("delete"), n: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("append"), n: fc.nat(5) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant("deliver"), n: fc.nat(6) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("wait"), n: fc.constantFrom(1, 30, 2000) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("cut"), n: fc.constant(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("open a tab"), n: fc.constant(0) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("close a tab"), n: fc.nat(4) }) },
);

test("all tabs show what is, over one connection, whichever of them come and go", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 40, size: "max" }), async (events) => {
      const gateway = new ModelGateway();
      const tabs = [openTab(gateway)];
      let appended = 0;
      for (const { do: what, n } of events) {
        if (what === "change") gateway.change(`run_${String(n)}`);
        else if (what === "delete") gateway.delete(`run_${String(n)}`);
        else if (what === "append") for (let i = 0; i < n; i++) gateway.append("llm", appended++);
        else if (what === "deliver") gateway.deliver(n);
        else if (what === "wait") await vi.advanceTimersByTimeAsync(n);
        else if (what === "cut") gateway.cut();
        else if (what === "open a tab") {
          if (tabs.length < 4) tabs.push(openTab(gateway));
        } else tabs.splice(n, 1)[0]?.client.close();
      }
      if (tabs.length === 0) tabs.push(openTab(gateway));
      await settle(gateway);
      const truth = [...gateway.runs.keys()].sort();
      const parts = Array.from({ length: appended }, (_, n) => n);
      for (const { list, stream } of tabs) {
        const { status, runs } = list.getSnapshot();
        expect([status, runs.map(({ id }) => id).sort()]).toEqual(["live", truth]);
        for (const run of runs) expect(run).toEqual(gateway.runs.get(run.id)?.run);
        expect(stream.getSnapshot().parts).toEqual(parts);
      }
      expect(gateway.sockets.size).toBe(1);
      // What closed tabs followed is followed no more.
      expect(gateway.followers.size).toBe(2 * tabs.length);
      for (const { client } of tabs) client.close();
      await vi.advanceTimersByTimeAsync(5000);
      expect([gateway.sockets.size, vi.getTimerCount()]).toEqual([0, 0]);
    }),
    { numRuns: 60 },
  );
}, 60_000);

test("tabs whose tokens have other rights share nothing", async () => {
  const gateway = new ModelGateway();
  const tabs = ["read:runs:run_1", "read:runs:run_2", "read:runs:run_1"].map((scope) =>
    openTab(gateway, scope),
  );
  await settle(gateway);
  expect(gateway.sockets.size).toBe(2);
  expect(tabs.map(({ client }) => client.connection.getSnapshot().status)).toEqual([
    "open",
    "open",
    "shared",
  ]);
  for (const { client } of tabs) client.close();
});
