// React Native without a phone: a bundle by Metro's rules and Babel, which Hermes compiles, and
// which runs where there is no more than React Native and the engine give.
//
//   node --experimental-websocket react_native.mjs http://127.0.0.1:8080 tr_dev_… /tmp/folder

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import vm from "node:vm";
import babel from "@babel/standalone";
import { metroRules } from "./metro_rules.mjs";

const HERE = import.meta.dirname;
const CLIENT = path.join(HERE, "../../../clients/js");
const HERMES = path.join(HERE, "node_modules/hermes-compiler/hermesc/linux64-bin/hermesc");
const requireTool = createRequire(path.join(CLIENT, "package.json"));
const { build } = requireTool("esbuild");
const { JSDOM } = requireTool("jsdom");

async function bundled() {
  const { outputFiles } = await build({
    entryPoints: [path.join(HERE, "native_app.mjs")],
    bundle: true,
    format: "esm", // another one would hide `import.meta`, which Hermes refuses
    plugins: [metroRules],
    write: false,
  });
  return babel.transform(outputFiles[0].text, { presets: ["env"], compact: false }).code;
}

// Into a folder of the test: where it writes, it deletes what was there, be it a device.
function compile(code, folder) {
  const [script, bytecode] = ["app.js", "app.hbc"].map((name) => path.join(folder, name));
  writeFileSync(script, code);
  const options = ["-w", "-emit-binary", "-out", bytecode, script];
  const { status, stderr } = spawnSync(HERMES, options, { encoding: "utf8" });
  assert.equal(status, 0, stderr);
}

// Symbols that Hermes does not have cannot be taken away from Node.js, but hidden.
const WITHOUT_ASYNC_ITERATOR = `{
  const { asyncIterator, ...symbols } = Object.getOwnPropertyDescriptors(Symbol);
  const make = Symbol;
  globalThis.Symbol = Object.defineProperties((name) => make(name), symbols);
}`;

/** React Native's `fetch` is made of its XMLHttpRequest, which gives answers whole. */
function run(code, url) {
  const { XMLHttpRequest, Blob, FileReader } = new JSDOM("", { url }).window;
  const native = { XMLHttpRequest, Blob, FileReader, WebSocket, console, queueMicrotask };
  const timers = { setTimeout, clearTimeout, setInterval, clearInterval };
  const context = vm.createContext({ ...native, ...timers, navigator: { product: "ReactNative" } });
  context.window = context.self = context.global = context;
  vm.runInContext(WITHOUT_ASYNC_ITERATOR, context);
  vm.runInContext(code, context);
  return context;
}

const [url, key, folder] = process.argv.slice(2);
const code = await bundled();
compile(code, folder);
const app = run(code, url);
app.TextDecoder = TextDecoder; // Expo has it, and a `fetch` that streams
const plays = [app.start({ url, key }), app.start({ url, key, transports: ["sse"], fetch })];
console.log(JSON.stringify(await Promise.all(plays)));
