// An application in React Native: what React Native makes of the same packages, then ours.

import "whatwg-fetch";
import { AbortController } from "abort-controller/dist/abort-controller";
import { createClient } from "../../../clients/js/dist/index.js";
import { play } from "./play.mjs";

globalThis.AbortController = AbortController;
globalThis.start = (given) => play(createClient, given);
