// Lets esbuild find modules as Metro does with React Native's settings, by Metro's own resolver.

import { readFileSync, realpathSync, statSync } from "node:fs";
import path from "node:path";
import { resolve } from "metro-resolver";

function look(file) {
  const found = statSync(file, { throwIfNoEntry: false });
  if (!found) return { exists: false };
  return { exists: true, realPath: realpathSync(file), type: found.isDirectory() ? "d" : "f" };
}

const read = (file) => (look(file).exists ? JSON.parse(readFileSync(file, "utf8")) : null);

function packageOf(file) {
  for (let rootPath = path.dirname(file); ; rootPath = path.dirname(rootPath)) {
    const packageJson = read(path.join(rootPath, "package.json"));
    if (packageJson)
      return { packageJson, rootPath, packageRelativePath: path.relative(rootPath, file) };
    if (rootPath === "/") return null;
  }
}

const SETTINGS = {
  allowHaste: false,
  assetExts: new Set(),
  doesFileExist: (file) => look(file).type === "f",
  fileSystemLookup: look,
  getPackage: read,
  getPackageForModule: packageOf,
  isESMImport: true,
  mainFields: ["react-native", "browser", "main"],
  nodeModulesPaths: [],
  preferNativePlatform: true,
  sourceExts: ["js", "jsx", "json", "ts", "tsx"],
  unstable_conditionNames: ["react-native"],
  unstable_conditionsByPlatform: {},
  unstable_enablePackageExports: true,
  unstable_logWarning: (message) => {
    throw new Error(message);
  },
};

export const metroRules = {
  name: "metro",
  setup(bundle) {
    bundle.onResolve({ filter: /./ }, ({ kind, path: name, importer }) => {
      if (kind === "entry-point") return undefined;
      const found = resolve({ ...SETTINGS, originModulePath: importer }, name, "ios");
      return found.type === "empty" ? { path: name, namespace: "empty" } : { path: found.filePath };
    });
    bundle.onLoad({ filter: /./, namespace: "empty" }, () => ({ contents: "module.exports = {}" }));
  },
};
