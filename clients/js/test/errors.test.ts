import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { problemOf, remedyFor } from "../src/errors.js";

const PROTOCOL = readFileSync(new URL("../../../docs/protocol.md", import.meta.url), "utf8");
const SOURCE = readFileSync(new URL("../src/errors.ts", import.meta.url), "utf8");
const ROWS = [...PROTOCOL.matchAll(/^\| `(\w+)` \| (\d{3}) \| (\d{4}) \|/gm)].map(
  ([, code = "", status, close]) => ({ code, status: Number(status), close: Number(close) }),
);

test("the table of the protocol was found", () => {
  expect(ROWS.length).toBeGreaterThan(25);
});

test.each(ROWS)("$code is known, and is treated as its close code says", ({ code, close }) => {
  expect(SOURCE).toContain(`| "${code}"`);
  if (close < 4500) expect(remedyFor(code)).not.toBe("stop");
  // A wrong cursor, and a body that came too late, can be mended by asking again.
  else if (code !== "invalid_cursor" && code !== "request_timeout") {
    expect(remedyFor(code)).toBe("stop");
  }
});

test("an unknown code stops", () => {
  expect(remedyFor("newer_than_this_client")).toBe("stop");
});

test("an answer that is not the gateway's is read by its status", () => {
  expect(problemOf(502, undefined).code).toBe("backend_unavailable");
  expect(problemOf(429, "slow down").code).toBe("limit_exceeded");
  expect(problemOf(404, null).code).toBe("not_found");
  expect(problemOf(400, { code: "invalid_cursor", error: "no" })).toEqual({
    code: "invalid_cursor",
    message: "no",
  });
});
