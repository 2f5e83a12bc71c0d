// The rules of the client, and of hooks everywhere.
import hooks from "../js/node_modules/eslint-plugin-react-hooks/index.js";
import client from "../js/eslint.config.js";

export default [
  { ignores: ["build.mjs"] },
  ...client,
  hooks.configs.flat["recommended"],
  {
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "no-restricted-imports": "off", // of React, which only the core of the client does without
    },
  },
];
