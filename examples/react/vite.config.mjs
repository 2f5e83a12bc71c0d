export default {
  esbuild: { jsx: "automatic" },
  optimizeDeps: { exclude: ["@runcast/client"] },
  server: { proxy: { "/api": "http://127.0.0.1:8000" } },
};
