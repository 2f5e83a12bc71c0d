import { defineConfig } from "vitest/config";

const here = (path: string) => new URL(path, import.meta.url).pathname;

// Type tests, `test/*.test-d.ts`, are compiled by `npm run check`.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "all",
          include: ["test/**/*.test.{ts,tsx}"],
          env: { REACT_MAJOR: "19" },
        },
      },
      {
        resolve: {
          alias: {
            "@runcast/client": here("src/index.ts"),
            "fast-check": here("node_modules/fast-check"),
            vitest: here("node_modules/vitest"),
          },
        },
        test: { name: "page", include: ["../page/test/**/*.test.ts"] },
      },
      {
        resolve: {
          alias: [
            {
              find: /^(react|react-dom)(?=\/|$)/,
              replacement: here("test/react-18/node_modules/$1"),
            },
            {
              find: "@testing-library/react",
              replacement: here(
                "node_modules/@testing-library/react/dist/@testing-library/react.esm.js",
              ),
            },
          ],
        },
        test: {
          name: "react 18",
          env: { REACT_MAJOR: "18" },
          include: ["test/react.test.tsx"],
          server: { deps: { inline: [/@testing-library\/react/] } },
        },
      },
    ],
  },
});
