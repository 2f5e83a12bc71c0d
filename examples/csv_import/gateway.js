// What the official SDK can do only inside of Trigger.dev's own workers, as plain HTTP: see
// docs/protocol.md.

/** Make a run of a task for each item, all of them children of a run; give the batch's id. */
export async function makeBatch(task, parentRunId, items) {
  const body = {
    parentRunId,
    items: Array.from(items, ({ payload, metadata }) => ({ task, payload, options: { metadata } })),
  };
  return (await ask("POST", "/api/v2/tasks/batch", body)).id;
}

/** Move a run: to another status, to its output or its error. */
export async function change(run, fields) {
  await ask("PATCH", `/api/v1/runs/${run}`, fields);
}

/** Count in the metadata of a run, and of its parent; both are safe with many who count. */
export async function count(run, own, ofParent) {
  const increments = (values) =>
    Object.entries(values).map(([key, value]) => ({ type: "increment", key, value }));
  await ask("PUT", `/api/v1/runs/${run}/metadata`, {
    operations: increments(own),
    parentOperations: increments(ofParent),
  });
}

async function ask(method, path, body) {
  const answer = await fetch(new URL(path, process.env.TRIGGER_API_URL), {
    method,
    headers: {
      Authorization: `Bearer ${process.env.TRIGGER_SECRET_KEY}`,
      "Content-Type": "application/json",
    },
    body: JSON.stringify(body),
  });
  const told = await answer.json();
  if (answer.ok) return told;
  const error = new Error(`${method} ${path}: ${answer.status} ${told.error}`);
  throw Object.assign(error, { code: told.code });
}
