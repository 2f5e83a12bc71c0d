import { defineConfig } from "vite";
import { backend } from "./backend.js";

export default defineConfig({
  esbuild: { jsx: "automatic" },
  optimizeDeps: { include: ["react/jsx-dev-runtime"] },
  plugins: [
    { name: "backend", configureServer: (vite) => void vite.middlewares.use("/api", backend()) },
  ],
});
