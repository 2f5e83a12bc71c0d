import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

// As long as @runcast/client is not on npm, it is taken from this checkout.
const client = fileURLToPath(new URL("../../clients/js/src", import.meta.url));

export default defineConfig({
  root: "page",
  esbuild: { jsx: "automatic" },
  build: { outDir: "../dist", emptyOutDir: true },
  resolve: { alias: { "@runcast/client": client } },
});
