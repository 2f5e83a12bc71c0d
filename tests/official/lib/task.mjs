// What a worker of Trigger.dev prepares before it calls a task's code, so that the functions of the
// SDK that are for the inside of a task can be called here.

/** Go on as the code of a run; give the client's `metadata`, which looks for its run when loaded. */
export async function enterTask(t, run, { parent } = {}) {
  const core = await import(t.isOld ? "core-v3/v3" : "core-v4/v3");
  const workers = await import(t.isOld ? "core-v3/v3/workers" : "core-v4/v3/workers");
  core.taskContext.setGlobalTaskContext({ ctx: contextOf(run, parent), worker: { version: "1" } });
  const client = core.apiClientManager.clientOrThrow();
  const managed = t.isOld
    ? new workers.StandardMetadataManager(client, t.url, "v1")
    : new workers.StandardMetadataManager(client);
  managed.runId = run;
  core.runMetadata.setGlobalManager(managed);
  if (!t.isOld) {
    const streams = new workers.StandardRealtimeStreamsManager(client, t.url);
    core.realtimeStreams.setGlobalManager(streams);
  }
  const entry = import.meta.resolve(t.isOld ? "sdk-v3/v3" : "sdk-v4");
  return (await import(new URL("./metadata.js?in-task", entry))).metadata;
}

/**
 * Attend to the waits of a task, as the worker that suspends it would: what is waited for is over
 * when the run executes again. Gives the ids of the waitpoints, as they come.
 */
export async function attendToWaits(t, run) {
  const { runtime } = await import("core-v4/v3");
  const ids = [];
  runtime.setGlobalRuntimeManager({
    async waitForWaitpoint({ waitpointFriendlyId: id }) {
      ids.push(id);
      for await (const { status } of t.sdk.runs.subscribeToRun(run)) {
        if (status === "EXECUTING") break;
      }
      const { output, outputType, outputIsError } = await t.request(
        "GET",
        `/api/v1/waitpoints/tokens/${id}`,
      );
      return { ok: !outputIsError, output, outputType };
    },
    disable() {},
  });
  return ids;
}

function contextOf(run, parent) {
  const now = new Date();
  return {
    task: { id: "child", filePath: "child.ts", exportName: "child" },
    attempt: { id: "attempt_1", number: 1, startedAt: now, status: "EXECUTING" },
    run: {
      id: run,
      tags: [],
      isTest: false,
      createdAt: now,
      startedAt: now,
      parentTaskRunId: parent,
      rootTaskRunId: parent,
    },
    queue: { id: "queue_1", name: "child" },
    environment: { id: "env_1", slug: "dev", type: "DEVELOPMENT" },
    organization: { id: "org_1", slug: "org", name: "org" },
    project: { id: "project_1", ref: "proj_1", slug: "project", name: "project" },
    machine: { name: "small-1x", cpu: 0.5, memory: 0.5, centsPerMs: 0 },
  };
}
