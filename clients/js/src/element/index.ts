// What `@runcast/client/element` does for people: after it, a page can have <run-progress>.

import { define } from "./run-progress.js";

export { RunProgressElement, type RunErrorEvent, type RunEvent } from "./run-progress.js";

define();
