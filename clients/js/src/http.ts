// Triggering and listing: single requests to the gateway.

import { problemOf, RuncastError } from "./errors.js";
import { queryOf } from "./query.js";
import type { TokenSource } from "./token-source.js";
import type { Run, RunStatus, TaskId } from "./types.js";

export interface TriggerOptions {
  readonly idempotencyKey?: string;
  readonly idempotencyKeyTTL?: string;
  readonly tags?: readonly string[];
  readonly metadata?: unknown;
  readonly delay?: string;
  readonly ttl?: string;
  readonly queue?: { readonly name: string };
  readonly concurrencyKey?: string;
  readonly maxAttempts?: number;
  readonly priority?: number;
  readonly test?: boolean;
}

/** A run that was triggered, with a token that reads it. */
export interface RunHandle<Id extends TaskId = TaskId> {
  readonly id: string;
  readonly isCached: boolean;
  readonly publicAccessToken: string;
  /** Only for the compiler. */
  readonly taskIdentifier?: Id;
}

export interface ListQuery<Id extends TaskId = TaskId> {
  readonly status?: RunStatus | readonly RunStatus[];
  readonly task?: Id | readonly Id[];
  readonly tag?: string | readonly string[];
  readonly batch?: string;
  /** Created within this time before now, such as `1d`. */
  readonly period?: string;
  /** Runs on a page, 25 if left out, at most 100. */
  readonly size?: number;
  readonly after?: string;
  readonly before?: string;
}

/** Runs as lists have them: without payload and output. */
export type ListedRun<Id extends TaskId = TaskId> = Omit<
  Run<Id>,
  "payload" | "output" | "error" | "revision" | "number" | "attemptCount"
>;

export interface RunPage<Id extends TaskId = TaskId> {
  readonly data: readonly ListedRun<Id>[];
  readonly pagination: { readonly next?: string; readonly previous?: string };
}

/** Runs around a run, as far as the token shows them. */
export interface RelatedRuns {
  readonly root?: { readonly id: string };
  readonly parent?: { readonly id: string };
  readonly children: readonly { readonly id: string }[];
}

interface Http {
  readonly baseURL: string;
  readonly tokens: TokenSource;
  readonly fetch: typeof fetch;
}

/**
 * Send one request and give the JSON of its answer. A token that is refused is asked for again, once.
 *
 * @throws RuncastError with the gateway's code; `connection_lost` if there was no answer.
 */
async function request(
  { baseURL, tokens, fetch }: Http,
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<unknown> {
  for (let mayAskAgain = tokens.renewable && tokens.isKnown; ; mayAskAgain = false) {
    const token = await tokens.get();
    let response: Response;
    try {
      response = await fetch(baseURL + path, {
        method,
        headers: {
          authorization: `Bearer ${token}`,
          ...(body !== undefined && { "content-type": "application/json" }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        ...(signal && { signal }),
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new RuncastError(
        "connection_lost",
        `The gateway could not be reached: ${String(error)}`,
      );
    }
    const answer: unknown = await response.json().catch(() => undefined);
    if (response.ok) return answer;
    if (response.status === 401) {
      tokens.spend(token);
      if (mayAskAgain) continue;
    }
    throw RuncastError.of(problemOf(response.status, answer));
  }
}

export async function trigger(
  http: Http,
  task: string,
  payload: unknown,
  options?: TriggerOptions,
): Promise<RunHandle> {
  const path = `/api/v1/tasks/${encodeURIComponent(task)}/trigger`;
  const body = { payload, ...(options && { options }) };
  return (await request(http, "POST", path, body)) as RunHandle;
}

export async function list(
  http: Http,
  query: ListQuery = {},
  signal?: AbortSignal,
): Promise<RunPage> {
  return (await request(http, "GET", listPath(query), undefined, signal)) as RunPage;
}

export async function related(http: Http, id: string, signal?: AbortSignal): Promise<RelatedRuns> {
  const path = `/api/v3/runs/${encodeURIComponent(id)}`;
  const run = await request(http, "GET", path, undefined, signal);
  return (run as { relatedRuns: RelatedRuns }).relatedRuns;
}

const LIST_PARAMETERS = {
  status: "filter[status]",
  task: "filter[taskIdentifier]",
  tag: "filter[tag]",
  batch: "filter[batch]",
  period: "filter[createdAt][period]",
  size: "page[size]",
  after: "page[after]",
  before: "page[before]",
} as const;

function listPath(query: ListQuery): string {
  const parameters: Record<string, ListQuery[keyof ListQuery]> = {};
  for (const [name, parameter] of Object.entries(LIST_PARAMETERS)) {
    parameters[parameter] = query[name as keyof ListQuery];
  }
  return `/api/v1/runs${queryOf(parameters)}`;
}
