// Single requests to the gateway.

import { problemOf, RuncastError } from "./errors.js";
import type { TokenSource } from "./token-source.js";

export interface Http {
  readonly baseURL: string;
  readonly tokens: TokenSource;
  readonly fetch: typeof fetch;
}

/**
 * Send one request and give the JSON of its answer. A token that is refused is asked for again, once.
 *
 * @throws RuncastError with the gateway's code; `connection_lost` if there was no answer.
 */
export async function request(
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
