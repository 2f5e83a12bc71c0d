// The address of the event stream that answers a request.

import type { Request } from "./request.js";

export function urlOf(baseURL: string, request: Request): string {
  const query = new URLSearchParams();
  const path = "stream" in request ? streamPath(request, query) : runsPath(request, query);
  const text = query.toString();
  return `${baseURL}/realtime/v1/${path}${text && `?${text}`}`;
}

function streamPath(request: Extract<Request, { stream: object }>, query: URLSearchParams): string {
  if (request.from !== undefined) query.set("from", String(request.from));
  return `streams/${encodeURIComponent(request.stream.run)}/${encodeURIComponent(request.stream.key)}`;
}

function runsPath(request: Extract<Request, { runs: object }>, query: URLSearchParams): string {
  const { runs, skipColumns, stay, cursor } = request;
  if (skipColumns) query.set("skipColumns", skipColumns.join());
  if (cursor) query.set("cursor", cursor);
  if ("run" in runs) {
    if (stay) query.set("stay", "true");
    return `runs/${encodeURIComponent(runs.run)}`;
  }
  if ("batch" in runs) return `batches/${encodeURIComponent(runs.batch)}`;
  if (runs.tags) query.set("tags", runs.tags.join());
  if (runs.task !== undefined) query.set("task", runs.task);
  if (runs.createdAt !== undefined) query.set("createdAt", runs.createdAt);
  return "runs";
}
