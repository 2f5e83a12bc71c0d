// The address of the event stream that answers a request.

import { queryOf } from "./query.js";
import type { Request } from "./request.js";

export function urlOf(baseURL: string, request: Request): string {
  return `${baseURL}/realtime/v1/${"stream" in request ? streamOf(request) : runsOf(request)}`;
}

function streamOf({ stream, from }: Extract<Request, { stream: object }>): string {
  return `streams/${encodeURIComponent(stream.run)}/${encodeURIComponent(stream.key)}${queryOf({ from })}`;
}

function runsOf({ runs, skipColumns, stay, cursor }: Extract<Request, { runs: object }>): string {
  const common = { skipColumns, cursor };
  if ("run" in runs)
    return `runs/${encodeURIComponent(runs.run)}${queryOf({ ...common, stay: stay || undefined })}`;
  if ("batch" in runs) return `batches/${encodeURIComponent(runs.batch)}${queryOf(common)}`;
  return `runs${queryOf({ ...common, ...runs })}`;
}
