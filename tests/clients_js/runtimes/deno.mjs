import { createClient } from "../../../clients/js/dist/index.js";
import { playAll } from "./play.mjs";

const [url, key] = Deno.args;
console.log(await playAll(createClient, { url, key }));
