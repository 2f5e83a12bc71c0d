// What the element shows. How it does, in Chromium: tests/clients_js/test_element.py.

import { expect, test } from "vitest";
import { RuncastError, type RunSnapshot } from "../src/index.js";
import { viewOf } from "../src/element/progress.js";
import { aRun } from "./support/runs.js";

const wishes = { path: "progress", max: undefined, labels: {} };
const live = (fields: Parameters<typeof aRun>[0]): RunSnapshot => ({
  status: "live",
  resets: 0,
  run: aRun(fields),
});

test.each([
  ["a share of one", { progress: 0.25 }, wishes, 0.25],
  ["a percentage", { progress: 25 }, wishes, 0.25],
  ["a count", { progress: 1 }, { ...wishes, max: 50 }, 0.02],
  ["within", { import: { done: 5 } }, { ...wishes, path: "import.done", max: 10 }, 0.5],
  ["too much", { progress: 120 }, wishes, 1],
  ["too little", { progress: -1 }, wishes, 0],
  ["no number", { progress: "half" }, wishes, undefined],
  ["no metadata", null, wishes, undefined],
  ["of nothing", { progress: 1 }, { ...wishes, max: 0 }, undefined],
])("progress is %s", (_, metadata, wish, fraction) => {
  expect(viewOf(live({ metadata }), wish).fraction).toBe(fraction);
});

test.each([
  [live({ status: "EXECUTING" }), { status: "EXECUTING", label: "Running", tone: "calm" }],
  [live({ status: "TIMED_OUT" }), { status: "TIMED_OUT", label: "Timed out", tone: "bad" }],
  [live({ status: "COMPLETED" }), { label: "Fertig", tone: "good", fraction: 1 }],
  [
    live({ status: "FAILED", error: { message: "out of paper" } }),
    { label: "Failed", tone: "bad", problem: "out of paper" },
  ],
  [
    { status: "live", resets: 0, run: undefined },
    { status: "connecting", tone: "calm" },
  ],
  [
    { status: "failed", resets: 0, run: aRun(), error: new RuncastError("not_found", "no run") },
    { status: "failed", label: "Not available", tone: "bad", problem: "no run" },
  ],
  [
    {
      status: "retrying",
      resets: 0,
      run: undefined,
      problem: { code: "token_unavailable", message: "token-url answered 500" },
    },
    { label: "Reconnecting…", isBusy: true, problem: "token-url answered 500" },
  ],
  [
    { status: "ended", resets: 0, run: undefined, endReason: "deleted" },
    { label: "Gone", isBusy: false },
  ],
] as [RunSnapshot, object][])("what is shown of %o", (snapshot, view) => {
  expect(viewOf(snapshot, { ...wishes, labels: { COMPLETED: "Fertig" } })).toMatchObject(view);
});

test("it can be loaded where there are no elements", async () => {
  const { RunProgressElement } = await import("../src/element/index.js");
  expect(RunProgressElement.observedAttributes).toContain("token-url");
});
