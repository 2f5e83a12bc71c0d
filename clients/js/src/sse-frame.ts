// Events of an event stream in the form of messages.

import type { ConnectionFrame, Frame } from "./frame.js";
import type { ServerSentEvent } from "./sse-parser.js";

/** The first word of an event stream: by this id it can be given a newer token. */
export interface Connected {
  readonly type: "connection";
  readonly id: string;
  readonly expiresAt?: number;
}

/**
 * Read one event of an event stream as the message that it would be on a WebSocket.
 *
 * @throws SyntaxError if its data should be JSON, and is none.
 */
export function decodeEvent({
  type,
  data,
  id,
}: ServerSentEvent): Frame | ConnectionFrame | Connected | undefined {
  if (type === "message") {
    const [time, offset] = placeOf(id);
    return { type: "parts", offset, parts: [partOf(data)], times: [time] };
  }
  const cursor = id ? { cursor: id } : undefined;
  if (type === "id") return cursor && { type: "cursor", ...cursor };
  const value = JSON.parse(data) as object;
  switch (type) {
    case "up-to-date":
      return { type, ...cursor, ...value };
    case "connection":
      return { type, ...value } as Connected;
    case "expired":
      return { type };
    case "run":
    case "gone":
    case "reset":
    case "end":
    case "problem":
    case "reconnect":
      return { type, ...cursor, [type]: value } as Frame | ConnectionFrame;
    default:
      return undefined;
  }
}

/** A chunk that is not JSON is a text, on every transport. */
function partOf(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}

function placeOf(id = ""): [time: number, offset: number] {
  const [time, offset] = id.split("-").map(Number);
  if (time === undefined || offset === undefined || !Number.isSafeInteger(offset))
    throw new SyntaxError("A part came without its offset.");
  return [time, offset];
}
