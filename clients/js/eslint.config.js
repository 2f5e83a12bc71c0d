import hooks from "eslint-plugin-react-hooks";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist", "test/consumer", "eslint.config.js", "vitest.config.ts"] },
  ...tseslint.configs.strictTypeChecked,
  { languageOptions: { parserOptions: { projectService: true } } },
  {
    rules: {
      "@typescript-eslint/no-unused-vars": ["error", { varsIgnorePattern: "^_" }],
      // Type parameters that only the caller writes are how callers say what they expect.
      "@typescript-eslint/no-unnecessary-type-parameters": "off",
    },
  },
  {
    files: ["src/**/*.ts"],
    ignores: ["src/react/**"],
    rules: { "no-restricted-imports": ["error", { paths: ["react"], patterns: ["**/react/*"] }] },
  },
  { files: ["src/react/**"], ...hooks.configs.flat["recommended"] },
);
