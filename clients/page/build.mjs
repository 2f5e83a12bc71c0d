// Bundles what the gateway serves into src/runcast/web/built, at the paths of its URLs.
// A new file of the gateway is a new line in `entryPoints`: { "element/x": … } is /element/x.js.

import { cp, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const here = (path) => new URL(path, import.meta.url).pathname;
const outdir = here("../../src/runcast/web/built");

await rm(outdir, { recursive: true, force: true });
await mkdir(`${outdir}/page`, { recursive: true });
await cp(here("src/index.html"), `${outdir}/page/index.html`);
await build({
  absWorkingDir: here("."),
  entryPoints: {
    "page/page": "src/page.js",
    "page/style": "src/page.css",
    "page/sse": "src/sse.js",
    "page/run-table": "src/run-table.js",
    "page/run-spans": "src/run-spans.js",
    "page/stream-text": "src/stream-text.js",
    "page/stream-log": "src/stream-log.js",
  },
  outdir,
  bundle: true,
  splitting: true,
  chunkNames: "page/chunk-[hash]",
  format: "esm",
  target: "es2022",
  minify: true,
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"' },
  // The client is built from its sources, and uses the React of the page.
  alias: {
    "@runcast/client": here("../js/src/index.ts"),
    "@runcast/client/react": here("../js/src/react/index.ts"),
    react: here("node_modules/react"),
  },
  logLevel: "warning",
});
