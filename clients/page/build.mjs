// Bundles what the gateway serves into src/runcast/web/built, at the paths of its URLs.
// A bundle more is a line more under `entryPoints`: "element/x" is served as /element/x.js.

import { cp, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const here = (path) => new URL(path, import.meta.url).pathname;
const outdir = here("../../src/runcast/web/built");

await rm(outdir, { recursive: true, force: true });
await mkdir(`${outdir}/page`, { recursive: true });
await cp(here("src/index.html"), `${outdir}/page/index.html`);
const common = {
  absWorkingDir: here("."),
  outdir,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  logLevel: "warning",
};

await build({
  ...common,
  entryPoints: [
    { in: "src/main.tsx", out: "page/page" },
    { in: "src/page.css", out: "page/page" },
  ],
  splitting: true,
  chunkNames: "page/chunk-[hash]",
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"' },
  // The client is built from its sources, and uses the React of the page.
  alias: {
    "@runcast/client": here("../js/src/index.ts"),
    "@runcast/client/react": here("../js/src/react/index.ts"),
    react: here("node_modules/react"),
  },
});

// One file each, as other sites load them by their address: docs/element.md.
const allNow = {
  name: "all now, nothing later",
  setup(build) {
    build.onResolve({ filter: /\/later\.js$/ }, () => ({ path: here("../js/src/element/now.ts") }));
  },
};
await build({
  ...common,
  entryPoints: {
    "element/run-progress": "../js/src/element/served.ts",
    "element/tab-worker": "../js/src/tab-worker.ts",
  },
  plugins: [allNow],
});
