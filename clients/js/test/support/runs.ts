// Runs as the gateway sends them.

import type { Run } from "../../src/index.js";

export function aRun(fields: Partial<Run> & { id?: string; revision?: number } = {}): Run {
  return {
    id: "run_1",
    taskIdentifier: "hello",
    status: "EXECUTING",
    createdAt: "2026-01-01T00:00:00.000Z",
    updatedAt: "2026-01-01T00:00:00.000Z",
    revision: 1,
    number: 1,
    tags: [],
    isTest: false,
    durationMs: 0,
    costInCents: 0,
    baseCostInCents: 0,
    attemptCount: 1,
    depth: 0,
    payload: null,
    metadata: {},
    ...fields,
  } as Run;
}
