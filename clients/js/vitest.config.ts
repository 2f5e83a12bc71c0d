import { defineConfig } from "vitest/config";

// Type tests, `test/*.test-d.ts`, are compiled by `npm run check`.
export default defineConfig({ test: { include: ["test/**/*.test.{ts,tsx}"] } });
