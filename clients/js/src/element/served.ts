// The element as a gateway serves it, at /element/run-progress.js: it follows that gateway.

import { define, RunProgressElement } from "./run-progress.js";

RunProgressElement.gateway = new URL("..", import.meta.url).href;
define();
