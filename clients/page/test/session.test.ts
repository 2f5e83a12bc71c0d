import { beforeEach, expect, test, vi } from "vitest";
import { Session } from "../src/session.js";
import { claimsOf, startingPoint } from "../src/token.js";

const tokenFor = (claims: object) => `h.${btoa(JSON.stringify(claims))}.s`;
const brief = (exp: number, sub = "env") => tokenFor({ sub, scopes: ["read:tags:a"], exp });

const kept = new Map<string, string>();
const storage = {
  getItem: (key: string) => kept.get(key) ?? null,
  setItem: (key: string, value: string) => void kept.set(key, value),
};

beforeEach(() => {
  kept.clear();
  vi.useRealTimers();
});

test("a fresh token of the same rights goes under what is followed", async () => {
  const session = new Session(storage);
  session.give(brief(1));
  const { round } = session.getSnapshot();
  expect(session.ask()).toBe(brief(1));
  const asked = session.ask();
  expect(session.getSnapshot().isFreshWanted).toBe(true);
  session.give(brief(2));
  expect(await asked).toBe(brief(2));
  expect(session.getSnapshot()).toEqual({ token: brief(2), isFreshWanted: false, round });
  expect(new Session(storage).getSnapshot().token).toBe(brief(2));
});

test.each([
  ["of other rights", brief(2, "another"), 0],
  ["that comes when nobody waits for it any more", brief(2), 30_000],
])("a token %s begins anew", (_, token, waited) => {
  vi.useFakeTimers();
  const session = new Session(storage);
  session.give(brief(1));
  const { round } = session.getSnapshot();
  void session.ask();
  void session.ask();
  vi.advanceTimersByTime(waited);
  session.give(token);
  expect(session.getSnapshot()).toEqual({ token, isFreshWanted: false, round: round + 1 });
  expect(session.ask()).toBe(token);
});

test("what a token opens is where the page begins", () => {
  expect(startingPoint("tr_dev_secret")).toEqual({ everything: true, view: {} });
  const of = (...scopes: string[]) => startingPoint(tokenFor({ scopes }));
  expect(of("read:runs")).toEqual({ everything: true, view: {} });
  expect(of("read:runs:run_1")).toEqual({ everything: false, view: { run: "run_1" } });
  expect(of("read:tags:a", "read:runs:run_1").view).toEqual({ run: "run_1", tags: "a" });
  expect(claimsOf("no token")).toEqual({});
});
