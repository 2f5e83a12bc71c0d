// Every way to fail, by its code, and what helps. Codes of the gateway: docs/protocol.md "Errors".

/** Codes that the gateway sends. */
export type GatewayCode =
  | "internal_error"
  | "unauthorized"
  | "missing_token"
  | "invalid_token"
  | "expired_token"
  | "token_revoked"
  | "insufficient_scope"
  | "invalid_request"
  | "invalid_parameter"
  | "invalid_body"
  | "invalid_selector"
  | "invalid_cursor"
  | "not_found"
  | "method_not_allowed"
  | "request_timeout"
  | "payload_too_large"
  | "unsupported_media_type"
  | "unprocessable"
  | "illegal_transition"
  | "not_delayed"
  | "limit_exceeded"
  | "rate_limited"
  | "too_many_subscriptions"
  | "too_many_connections"
  | "gateway_full"
  | "slow_consumer"
  | "backend_unavailable"
  | "draining"
  | "invalid_configuration"
  | "one_time_token_spent"
  | "position_lost"
  | "stream_closed"
  | "stream_full"
  | "stream_lost"
  | "too_many_revocations"
  | "too_many_streams"
  | "invalid_command";

/**
 * Codes of this package: the connection broke; nothing came over it, as when a proxy holds answers
 * back; the token function failed; the answer made no sense; parts of a stream are missing.
 */
export type ClientCode =
  "connection_lost" | "no_answer" | "token_unavailable" | "invalid_answer" | "stream_gap";

/** What was wrong, as plain data. Newer gateways may send codes that are not listed. */
export interface Problem {
  readonly code: GatewayCode | ClientCode | (string & {});
  readonly message: string;
}

/** What is thrown, and what a snapshot holds as `error` once nothing more will come. */
export class RuncastError extends Error implements Problem {
  override readonly name = "RuncastError";

  constructor(
    readonly code: Problem["code"],
    message: string,
  ) {
    super(message);
  }

  static of(problem: Problem): RuncastError {
    return new RuncastError(problem.code, problem.message);
  }
}

/** What helps: ask again later, ask again without a position, a fresh token, or nothing. */
export type Remedy = "retry" | "restart" | "renew" | "stop";

const REMEDIES: Readonly<Record<string, Remedy>> = {
  internal_error: "retry",
  invalid_configuration: "retry",
  request_timeout: "retry",
  limit_exceeded: "retry",
  rate_limited: "retry",
  too_many_subscriptions: "retry",
  too_many_connections: "retry",
  gateway_full: "retry",
  slow_consumer: "retry",
  backend_unavailable: "retry",
  stream_lost: "retry",
  draining: "retry",
  connection_lost: "retry",
  no_answer: "retry",
  token_unavailable: "retry",
  invalid_answer: "retry",
  stream_gap: "retry",
  position_lost: "restart",
  invalid_cursor: "restart",
  expired_token: "renew",
};

export function remedyFor(code: string): Remedy {
  return REMEDIES[code] ?? "stop";
}

/** What went wrong here, where no code of ours says it: `connection_lost`, or another code. */
export function problemIn(error: unknown, code: ClientCode = "connection_lost"): Problem {
  if (error instanceof RuncastError) return { code: error.code, message: error.message };
  return { code, message: messageOf(error) };
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Read the body of a refused request; proxies answer as well, and not in our words. */
export function problemOf(status: number, body: unknown): Problem {
  const { code, error } = (body ?? {}) as { code?: unknown; error?: unknown };
  return {
    code: typeof code === "string" ? code : codeOf(status),
    message: typeof error === "string" ? error : `The gateway answered ${String(status)}.`,
  };
}

function codeOf(status: number): GatewayCode {
  if (status === 401) return "unauthorized";
  if (status === 403) return "insufficient_scope";
  if (status === 404) return "not_found";
  if (status === 408) return "request_timeout";
  if (status === 429) return "limit_exceeded";
  return status >= 500 ? "backend_unavailable" : "invalid_request";
}
