import { expect, test } from "vitest";
import { spansOf } from "../src/run-spans.js";

type Given = Record<string, number | string>;

// Begin and end in seconds, and whether it lasts yet; now is 60 s.
test.each<[Given, (string | number | boolean)[][]]>([
  [{ status: "QUEUED", createdAt: 1, queuedAt: 1 }, [["Queued", 1, 60, true]]],
  [{ status: "DELAYED", createdAt: 1, delayedUntil: 90 }, [["Delayed", 1, 60, true]]],
  [
    { status: "CANCELED", createdAt: 1, delayedUntil: 90, finishedAt: 5 },
    [["Delayed", 1, 5, false]],
  ],
  [{ status: "EXPIRED", createdAt: 1, queuedAt: 1, expiredAt: 9 }, [["Queued", 1, 9, false]]],
  [
    {
      status: "COMPLETED",
      createdAt: 1,
      delayedUntil: 4,
      queuedAt: 5,
      startedAt: 8,
      finishedAt: 20,
    },
    [
      ["Delayed", 1, 5, false],
      ["Queued", 5, 8, false],
      ["Executed", 8, 20, false],
    ],
  ],
  [
    { status: "WAITING", createdAt: 1, queuedAt: 1, startedAt: 2 },
    [
      ["Queued", 1, 2, false],
      ["Waiting", 2, 60, true],
    ],
  ],
])("%j", (given, spans) => {
  const run = Object.fromEntries(
    Object.entries(given).map(([name, value]) => [
      name,
      typeof value === "number" ? new Date(value * 1000).toISOString() : value,
    ]),
  ) as unknown as Parameters<typeof spansOf>[0];
  const told = spansOf(run, 60_000).map(({ name, from, to, open }) => [
    name,
    from / 1000,
    to / 1000,
    open,
  ]);
  expect(told).toEqual(spans);
});
