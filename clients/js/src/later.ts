// What most pages never need, loaded when it is needed. Bundles of one file put `now.ts` in its place.

export const loadSse = () => import("./sse-transport.js");
export const loadTabs = () => import("./tab-link.js");
export const loadHttp = () => import("./http.js");
