// In place of `later.ts`, where all is in one file. The element neither triggers nor lists.

import * as sse from "../sse-transport.js";
import * as tabs from "../tab-link.js";

export const loadSse = () => Promise.resolve(sse);
export const loadTabs = () => Promise.resolve(tabs);
export const loadHttp = () => Promise.reject(new Error("not here"));
