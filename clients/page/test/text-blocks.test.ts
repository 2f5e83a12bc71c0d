import fc from "fast-check";
import { expect, test } from "vitest";
import { extended, type Block } from "../src/text-blocks.js";

const LINE = `${"x".repeat(99)}\n`;

test("blocks hold the text, whatever is added and cut off", () => {
  const step = fc.tuple(fc.string({ maxLength: 3 }), fc.nat(60), fc.nat(5000));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
      let whole = "";
      let gone = 0;
      let blocks: readonly Block[] = [];
      for (const [word, lines, cut] of steps) {
        whole += word + LINE.repeat(lines);
        gone = Math.min(gone + cut, whole.length);
        blocks = extended(blocks, whole.slice(gone), gone);
        const begin = blocks[0]?.at ?? whole.length;
        expect(begin).toBeLessThanOrEqual(gone);
        expect(blocks.map(({ text }) => text).join("")).toBe(whole.slice(begin));
      }
    }),
  );
});

test("a block that is full stays the same one", () => {
  const before = extended([], LINE.repeat(50), 0);
  const after = extended(before, `${LINE.repeat(50)}and more`, 0);
  expect(before.length).toBeGreaterThan(1);
  expect(after.slice(0, before.length - 1)).toEqual(before.slice(0, -1));
  expect(after[0]).toBe(before[0]);
  expect(extended(after, `${LINE.repeat(50)}and more`, 0)).toBe(after);
});

test("another text replaces the one before", () => {
  const before = extended([], "the old text", 0);
  expect(extended(before, "new", 0)).toEqual([{ at: 0, text: "new" }]);
  expect(extended(before, "", 0)).toEqual([]);
});
