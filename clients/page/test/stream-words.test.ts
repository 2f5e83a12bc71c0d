import { expect, test } from "vitest";
import { isText, linesOf } from "../src/stream-words.js";

test.each<[string, unknown[], boolean]>([
  ["nothing yet", [], true],
  ["one text", ["It began with a rather long sentence."], true],
  ["pieces of a text", ["Once", " upon", " a time"], true],
  [
    "events of a language model",
    [{ choices: [{ delta: { content: "Hello" } }] }, { choices: [] }],
    true,
  ],
  ["objects", [{ level: "info" }, { level: "warn" }], false],
  ["lines of a log", ["12:00 the server starts", "12:01 the server is there"], false],
])("%s", (_, parts, answer) => {
  expect(isText(parts)).toBe(answer);
});

test("parts without text are lines", () => {
  expect(linesOf([{ n: 1 }, "two"])).toBe('{"n":1}\ntwo\n');
});
