import { describe, expect, test } from "vitest";
import {
  INITIAL,
  step,
  type Action,
  type Input,
  type Phase,
  type State,
} from "../src/subscription-state.js";
import { aRun } from "./support/runs.js";

const INPUTS = {
  follow: { type: "follow" },
  leave: { type: "leave" },
  due: { type: "due" },
  run: { type: "run", run: aRun() },
  gone: { type: "gone", gone: { id: "run_1", reason: "deleted" } },
  parts: { type: "parts", offset: 0, parts: [1], times: [17] },
  "up-to-date": { type: "up-to-date", cursor: "c" },
  cursor: { type: "cursor", cursor: "c" },
  reset: { type: "reset", reset: { reason: "too_old", message: "m" } },
  end: { type: "end", end: { reason: "finished" } },
  "passing problem": { type: "problem", problem: { code: "backend_unavailable", message: "m" } },
  "problem of position": { type: "problem", problem: { code: "invalid_cursor", message: "m" } },
  "problem of token": { type: "problem", problem: { code: "expired_token", message: "m" } },
  "lasting problem": { type: "problem", problem: { code: "not_found", message: "m" } },
  lost: { type: "lost", problem: { code: "connection_lost", message: "m" } },
} as const satisfies Record<string, Input>;

type Cell = readonly [Phase, Action];

const same = (phase: Phase): Record<keyof typeof INPUTS, Cell> =>
  Object.fromEntries(Object.keys(INPUTS).map((name) => [name, [phase, "none"]])) as never;

const heard: Partial<Record<keyof typeof INPUTS, Cell>> = {
  leave: ["idle", "hang-up"],
  "up-to-date": ["live", "take"],
  reset: ["connecting", "forget"],
  end: ["ended", "none"],
  "passing problem": ["retrying", "wait"],
  "problem of position": ["retrying", "forget-and-wait"],
  "problem of token": ["failed", "none"],
  "lasting problem": ["failed", "none"],
  lost: ["connecting", "ask"],
};

const TABLE: Record<Phase, Record<keyof typeof INPUTS, Cell>> = {
  idle: { ...same("idle"), follow: ["connecting", "ask"] },
  connecting: {
    ...same("connecting"),
    ...heard,
    run: ["connecting", "take"],
    gone: ["connecting", "take"],
    parts: ["connecting", "take"],
  },
  live: {
    ...same("live"),
    ...heard,
    run: ["live", "take"],
    gone: ["live", "take"],
    parts: ["live", "take"],
    cursor: ["live", "take"],
  },
  retrying: { ...same("retrying"), due: ["connecting", "ask"], leave: ["idle", "none"] },
  ended: same("ended"),
  failed: same("failed"),
};

describe.each(Object.keys(TABLE) as Phase[])("%s", (phase) => {
  test.each(Object.keys(INPUTS) as (keyof typeof INPUTS)[])("on %s", (name) => {
    const [next, action] = step({ ...INITIAL, phase }, INPUTS[name]);
    expect([next.phase, action]).toEqual(TABLE[phase][name]);
  });
});

const after = (...inputs: Input[]): State =>
  inputs.reduce((state, input) => step(state, input)[0], INITIAL);

test("passing problems are counted until it is up to date", () => {
  const twice = after(
    INPUTS.follow,
    INPUTS["passing problem"],
    INPUTS.due,
    INPUTS["passing problem"],
    INPUTS.due,
  );
  expect(twice).toMatchObject({ attempt: 2, problem: { code: "backend_unavailable" } });
  const { attempt, problem } = step(twice, INPUTS["up-to-date"])[0];
  expect({ attempt, problem }).toEqual({ attempt: 0, problem: undefined });
});

test("each reset is counted, with the reason of the last one", () => {
  const state = after(INPUTS.follow, INPUTS.reset, INPUTS["problem of position"]);
  expect(state).toMatchObject({ resets: 2, reset: { reason: "invalid_cursor" } });
});

test("what it failed of stays", () => {
  expect(after(INPUTS.follow, INPUTS["lasting problem"], INPUTS.leave)).toMatchObject({
    phase: "failed",
    problem: { code: "not_found" },
  });
});
