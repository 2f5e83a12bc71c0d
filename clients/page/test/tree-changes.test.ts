import fc from "fast-check";
import { expect, test } from "vitest";
import { changedPaths, withNewer } from "../src/tree-changes.js";

test.each<[string, unknown, unknown, string[]]>([
  ["a value", { a: 1, b: 2 }, { a: 1, b: 3 }, ["/b", ""]],
  ["a new key", { a: 1 }, { a: 1, b: null }, ["/b", ""]],
  ["a key that is gone", { a: 1, b: 2 }, { a: 1 }, [""]],
  [
    "something deep, with all that it is in",
    { a: { b: [1, 2] } },
    { a: { b: [1, 3] } },
    ["/a/b/1", "/a/b", "/a", ""],
  ],
  ["another kind of value", { a: [1] }, { a: { 0: 1 } }, ["/a", ""]],
  ["a key with signs of paths", { "a/b~": 1 }, { "a/b~": 2 }, ["/a~1b~0", ""]],
  ["from nothing", undefined, { a: 1 }, [""]],
])("%s", (_, before, after, paths) => {
  expect([...changedPaths(before, after)].sort()).toEqual([...paths].sort());
});

test("there is a change exactly where values differ", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (before, after) => {
      const isEqual = JSON.stringify(before) === JSON.stringify(after);
      fc.pre(isEqual || JSON.stringify(sorted(before)) !== JSON.stringify(sorted(after)));
      expect(changedPaths(before, after).size > 0).toBe(!isEqual);
    }),
  );
});

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return Object.is(value, -0) ? 0 : value;
  return Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, inner]) => [key, sorted(inner)]);
}

test("each place has the number of its last change", () => {
  const first = { value: { a: 1, b: 1 }, number: 0, places: new Map() };
  const second = withNewer(first, { a: 2, b: 1 });
  const third = withNewer(second, { a: 2, b: 2 });
  expect([third.places.get("/a"), third.places.get("/b")]).toEqual([1, 2]);
  expect(withNewer(third, third.value)).toBe(third);
});
