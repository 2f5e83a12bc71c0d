// What a page loads for this package, minified and gzipped.

import { build, type Plugin } from "esbuild";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";

const SRC = new URL("../src/", import.meta.url).pathname;

async function sizeOf(code: string, external: string[], plugins: Plugin[] = []): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents: code, resolveDir: SRC, loader: "ts" },
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    external,
    plugins,
    write: false,
  });
  return gzipSync(outputFiles[0]?.contents ?? "", { level: 9 }).length;
}

// Loaded when they are needed: event streams, sharing with other tabs, single requests.
const LATER = ["./sse-transport.js", "./tab-link.js", "./http.js"];

test("the core has less than 8 kB", async () => {
  expect(await sizeOf('export * from "./index.js"', LATER)).toBeLessThan(8000);
});

test.each(LATER)("%s adds less than 2.5 kB where it is needed", async (file) => {
  const shared = ["gateway-link", "token-source", "errors", "signals", "store"].map(
    (core) => `./${core}.js`,
  );
  expect(await sizeOf(`export * from "${file}"`, shared)).toBeLessThan(2500);
});

test("the hooks have less than 3 kB", async () => {
  const code = 'export * from "./react/index.js"';
  expect(await sizeOf(code, ["react", "../index.js"])).toBeLessThan(3000);
});

test("the chat transport has less than 2 kB", async () => {
  const code = 'export * from "./ai/index.js"';
  expect(await sizeOf(code, ["ai", "../index.js"])).toBeLessThan(2000);
});

test("the element as gateways serve it has less than 15 kB", async () => {
  // As clients/page/build.mjs makes it.
  const now: Plugin = {
    name: "now",
    setup(bundle) {
      bundle.onResolve({ filter: /\/later\.js$/ }, () => ({ path: `${SRC}element/now.ts` }));
    },
  };
  expect(await sizeOf('import "./element/served.js"', [], [now])).toBeLessThan(15_000);
});

test("what is not used is not loaded", async () => {
  expect(await sizeOf('export { textOf } from "./index.js"', LATER)).toBeLessThan(500);
});
