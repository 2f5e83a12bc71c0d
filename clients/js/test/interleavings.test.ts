// Any interleaving of changes, deliveries, losses and token changes ends where the gateway stands.

import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createClient } from "../src/index.js";
import { ModelGateway } from "./support/gateway.js";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

const runId = fc.constantFrom("run_1", "run_2", "run_3");

const event = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("change"), id: runId }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("delete"), id: runId }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("append"), count: fc.integer({ min: 1, max: 9 }) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant("deliver"), count: fc.integer({ min: 1, max: 6 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("wait"), ms: fc.constantFrom(1, 40, 900, 25_000) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("cut"),
      how: fc.constantFrom(
        [1006, ""],
        [4001, "expired_token"],
        [4054, "draining"],
        [4029, "slow_consumer"],
      ),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: "forget history" }) },
  { weight: 1, arbitrary: fc.constant({ do: "keep alive" }) },
  { weight: 1, arbitrary: fc.constant({ do: "new token" }) },
  { weight: 1, arbitrary: fc.constant({ do: "go down" }) },
  { weight: 1, arbitrary: fc.constant({ do: "come up" }) },
  { weight: 1, arbitrary: fc.constant({ do: "toggle the list" }) },
) as fc.Arbitrary<{ do: string; id?: string; count?: number; ms?: number; how?: [number, string] }>;

test("what is shown is what is, no part is missing or twice, and no state steps back", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(event, { maxLength: 60, size: "max" }), async (events) => {
      const gateway = new ModelGateway();
      let token = "good";
      const client = createClient({
        baseURL: "http://gateway",
        token: () => token,
        transports: ["websocket"],
        WebSocket: gateway.WebSocket,
      });
      const appended: number[] = [];
      const read: unknown[] = [];
      const reading = (async () => {
        for await (const part of client.stream("run_1", "llm", { maxParts: 5 })) read.push(part);
      })();
      const stream = client.stream("run_1", "llm");
      stream.subscribe(() => undefined);
      const list = client.runs({});
      const steps = new Map<string, number>();
      let { resets } = list.getSnapshot();
      const watch = () => {
        const snapshot = list.getSnapshot();
        if (snapshot.resets !== resets || snapshot.status !== "live") steps.clear();
        ({ resets } = snapshot);
        for (const { id, revision } of snapshot.runs) {
          expect(revision).toBeGreaterThanOrEqual(steps.get(id) ?? 0);
          steps.set(id, revision);
        }
      };
      let stop: (() => void) | undefined = list.subscribe(watch);

      for (const step of events) {
        switch (step.do) {
          case "change":
            gateway.change(step.id ?? "");
            break;
          case "delete":
            gateway.delete(step.id ?? "");
            break;
          case "append":
            for (let n = 0; n < (step.count ?? 0); n++) {
              appended.push(appended.length);
              gateway.append("llm", appended.length - 1);
            }
            break;
          case "deliver":
            gateway.deliver(step.count);
            break;
          case "wait":
            await vi.advanceTimersByTimeAsync(step.ms ?? 0);
            break;
          case "cut":
            gateway.cut(...(step.how ?? [1006, ""]));
            break;
          case "forget history":
            gateway.forgetHistory();
            break;
          case "keep alive":
            gateway.deliver(); // the gateway says it only when nothing else is on the way
            gateway.keepAlive();
            break;
          case "new token":
            gateway.tokens.delete(token);
            gateway.expired.add(token);
            token = `${token}!`;
            gateway.tokens.set(token, undefined);
            break;
          case "go down":
            gateway.isUp = false;
            gateway.cut();
            break;
          case "come up":
            gateway.isUp = true;
            break;
          case "toggle the list":
            stop?.();
            stop = stop === undefined ? list.subscribe(watch) : undefined;
        }
      }

      gateway.isUp = true;
      stop ??= list.subscribe(watch);
      const settle = async () => {
        for (let n = 0; n < 80; n++) {
          await vi.advanceTimersByTimeAsync(500);
          gateway.deliver();
        }
      };
      await settle();
      const truth = [...gateway.runs.values()].map(({ run }) => run);
      const byId = (runs: readonly { id: string }[]) =>
        [...runs].sort((one, other) => (one.id < other.id ? -1 : 1));
      expect(byId(list.getSnapshot().runs)).toEqual(byId(truth));
      expect(list.getSnapshot().status).toBe("live");
      expect(stream.getSnapshot().parts).toEqual(appended);
      gateway.end("llm");
      await settle();
      await reading;
      expect(read).toEqual(appended);
      expect(stream.getSnapshot().status).toBe("ended");
      expect(gateway.sockets.size).toBe(1);
      client.close();
      await vi.advanceTimersByTimeAsync(5000);
      expect(vi.getTimerCount()).toBe(0);
    }),
    { numRuns: 150 },
  );
}, 60_000);
