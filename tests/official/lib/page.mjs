// A page in jsdom that shows what hooks give: React and the hooks of one generation, unmodified.

import { JSDOM } from "jsdom";

const HOOKS = { v3: "hooks-v3", v4: "hooks-v4" };

// Clients of 3.3 log it when one who reads a stream has left.
const NOISE = /^Error (in|subscribing to) stream \S+ AbortError/;

export class Page {
  #t;
  #react;
  #createRoot;
  #hooks;
  #SWRConfig;
  #views = new Set();
  #count = 0;
  #strict = false;

  /** What was logged as a warning or an error; a check fails if something is left here. */
  complaints = [];

  /** The page of this process; React and the hooks look for a browser while they are loaded. */
  static async open(t) {
    const { window } = new JSDOM("", { url: "http://localhost/", pretendToBeVisual: true });
    Object.assign(globalThis, { window, document: window.document });
    globalThis.localStorage ??= window.localStorage;
    globalThis.navigator ??= window.navigator;
    const page = new Page();
    page.#t = t;
    page.#react = (await import("react")).default;
    page.#createRoot = (await import("react-dom/client")).createRoot;
    page.#SWRConfig = (await import("swr")).SWRConfig;
    page.#hooks = await import(HOOKS[t.generation]);
    for (const level of ["warn", "error"]) {
      console[level] = (...words) => {
        const text = words.map(String).join(" ");
        if (!NOISE.test(text)) page.complaints.push(text);
      };
    }
    return page;
  }

  /**
   * Show what `use(hooks)` returns, and show it again whenever it changes.
   *
   * `auth` is the value of the provider around it, beside the address of the gateway; a text is
   * the token alone, and null leaves the provider out.
   */
  show(use, { auth, strict = false } = {}) {
    const context = typeof auth === "string" ? { accessToken: auth } : auth;
    const view = new View(this.#t);
    this.#strict ||= strict;
    const createElement = this.#react.createElement;
    const Screen = ({ use }) => {
      const shown = use(this.#hooks);
      this.#react.useEffect(() => view.receive(shown));
      return null;
    };
    const root = this.#createRoot(document.createElement("div"), {
      // Hooks keep what they show by an id that is theirs only within one root.
      identifierPrefix: `view-${(this.#count += 1)}-`,
      onUncaughtError: (error) => view.fail(error),
    });
    view.draw = (use) => {
      let tree = createElement(Screen, { use });
      if (context !== null) {
        const value = { baseURL: this.#t.url, ...context };
        tree = createElement(this.#hooks.TriggerAuthContext.Provider, { value }, tree);
      }
      tree = createElement(this.#SWRConfig, { value: { dedupingInterval: 0 } }, tree);
      root.render(strict ? createElement(this.#react.StrictMode, null, tree) : tree);
    };
    view.leave = () => {
      root.unmount();
      this.#views.delete(view);
    };
    this.#views.add(view);
    view.draw(use);
    return view;
  }

  /** Put the tab into the background, or back before the eyes of its user. */
  setHidden(hidden) {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new window.Event("visibilitychange"));
  }

  /** Leave the page: its requests end, and nothing was said that nobody expected. */
  async close() {
    for (const view of this.#views) view.leave();
    // In strict mode the hooks forget how to end the second of their two subscriptions.
    if (!this.#strict) await this.#t.ask("wait until nobody is connected");
    this.#t.assert.deepEqual(this.complaints, []);
  }
}

/** What hooks returned at each time something changed. */
class View {
  #t;
  #waiting = new Set();

  seen = [];
  failure = undefined;

  constructor(t) {
    this.#t = t;
  }

  get last() {
    return this.seen.at(-1);
  }

  receive(shown) {
    this.seen.push(shown);
    for (const look of this.#waiting) look();
  }

  fail(error) {
    this.failure = error;
    for (const look of this.#waiting) look();
  }

  /** Wait until what is shown fits, and give it. */
  async until(fits, what = String(fits)) {
    let look;
    const found = new Promise((resolve, reject) => {
      look = () => {
        try {
          if (this.failure) throw this.failure;
          if (this.seen.length && fits(this.last)) resolve(this.last);
        } catch (error) {
          reject(error);
        }
      };
      this.#waiting.add(look);
      look();
    });
    try {
      return await this.#t.soon(found, what);
    } catch (error) {
      throw new Error(`${error.message}; shown is ${brief(this.last)}`, { cause: error });
    } finally {
      this.#waiting.delete(look);
    }
  }
}

function brief(value) {
  const text = JSON.stringify(value, (_, part) => (part instanceof Error ? String(part) : part));
  return String(text).slice(0, 600);
}
