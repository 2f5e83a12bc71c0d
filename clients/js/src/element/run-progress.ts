// <run-progress run="…" token-url="…">: a run for pages without a framework.

import type { Run, TaskId } from "../types.js";
import { RuncastError } from "../errors.js";
import { NO_RUN, type RunSnapshot } from "../run-feed.js";
import type { StreamSnapshot } from "../stream-feed.js";
import { borrow } from "./clients.js";
import { viewOf } from "./progress.js";
import { STYLE } from "./style.js";

/** `runchange`: after each change. `runcomplete`: the run is finished, however that ended. */
export type RunEvent<Id extends TaskId = TaskId> = CustomEvent<{ readonly run: Run<Id> }>;
/** `runerror`: the run cannot be followed. */
export type RunErrorEvent = CustomEvent<{ readonly error: RuncastError }>;

const ATTRIBUTES = ["run", "token-url", "base-url", "stream", "progress", "max", "label", "labels"];
/** Those that only change how it looks. */
const LOOKS = new Set(["progress", "max", "label", "labels"]);

const MAX_TEXT = 100_000;
const THROTTLE_MS = 50;

// Where there are no elements, as on a server, this can be loaded all the same.
const Base = (globalThis as Partial<typeof globalThis>).HTMLElement ?? (Object as never);

export class RunProgressElement extends Base {
  static readonly observedAttributes = ATTRIBUTES;
  /** The gateway of elements without `base-url`; the origin of the page if that is undefined. */
  static gateway: string | undefined;

  #parts: Parts | undefined;
  #snapshot: RunSnapshot = NO_RUN;
  /** What is followed, and what was said of it: an element that is moved does not say it again. */
  #subject = "";
  #toldRevision = 0;
  #toldOver = false;
  #stop: (() => void) | undefined;
  #isBeginning = false;

  /** What is known now. */
  get snapshot(): RunSnapshot {
    return this.#snapshot;
  }

  connectedCallback(): void {
    this.#parts ??= makeParts(this.attachShadow({ mode: "open" }));
    this.#begin();
  }

  disconnectedCallback(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  attributeChangedCallback(name: string): void {
    if (!this.isConnected || !this.#parts) return;
    if (LOOKS.has(name)) this.#show();
    else this.#begin();
  }

  // -- following ----------------------------------------------------------------------------------

  /** Follow what the attributes say, once all that are changed together are. */
  #begin(): void {
    if (this.#isBeginning) return;
    this.#isBeginning = true;
    queueMicrotask(() => {
      this.#isBeginning = false;
      if (this.isConnected) this.#follow();
    });
  }

  #follow(): void {
    this.disconnectedCallback();
    const [run, tokenURL, key] = ["run", "token-url", "stream"].map((name) =>
      this.getAttribute(name),
    );
    const base = this.getAttribute("base-url") ?? RunProgressElement.gateway;
    const subject = JSON.stringify([run, tokenURL, base]);
    if (subject !== this.#subject) {
      this.#subject = subject;
      this.#toldRevision = 0;
      this.#toldOver = false;
    }
    this.#parts?.setText("");
    if (!run || !tokenURL) {
      this.#take(NO_RUN);
      return;
    }
    try {
      this.#stop = this.#open(run, key, tokenURL, base);
    } catch (error) {
      const { message } = error as Error;
      this.#take({
        ...NO_RUN,
        status: "failed",
        error: new RuncastError("invalid_request", message),
      });
    }
  }

  #open(
    run: string,
    key: string | null | undefined,
    tokenURL: string,
    base: string | undefined,
  ): () => void {
    const [client, giveBack] = borrow(
      base === undefined ? undefined : new URL(base, document.baseURI).href,
      new URL(tokenURL, document.baseURI).href,
    );
    const feed = client.run(run, { skipColumns: ["payload", "output"], throttleMs: THROTTLE_MS });
    const stops = [
      feed.subscribe(() => {
        this.#take(feed.getSnapshot());
      }),
    ];
    this.#take(feed.getSnapshot());
    if (key) {
      const stream = client.stream(run, key, {
        maxParts: 1,
        maxText: MAX_TEXT,
        throttleMs: THROTTLE_MS,
      });
      stops.push(
        stream.subscribe(() => {
          this.#takeText(stream.getSnapshot());
        }),
      );
      this.#takeText(stream.getSnapshot());
    }
    return () => {
      for (const stop of stops) stop();
      giveBack();
    };
  }

  #take(snapshot: RunSnapshot): void {
    this.#snapshot = snapshot;
    this.#show();
    const { run, error, status } = snapshot;
    if (run && run.revision > this.#toldRevision) {
      this.#toldRevision = run.revision;
      this.#say("runchange", { run });
    }
    if (this.#toldOver || (status !== "failed" && !(status === "ended" && run))) return;
    this.#toldOver = true;
    if (status === "failed") this.#say("runerror", { error });
    else this.#say("runcomplete", { run });
  }

  #takeText({ text, status, textOffset }: StreamSnapshot): void {
    this.#parts?.setText(textOffset > 0 ? `…${text}` : text);
    this.#parts?.text.setAttribute("aria-busy", String(status !== "ended" && status !== "failed"));
  }

  #say(type: string, detail: object): void {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, composed: true, detail }));
  }

  // -- showing ------------------------------------------------------------------------------------

  #show(): void {
    const parts = this.#parts;
    if (!parts) return;
    const max = Number(this.getAttribute("max") ?? NaN);
    const view = viewOf(this.#snapshot, {
      path: this.getAttribute("progress") ?? "progress",
      max: Number.isNaN(max) ? undefined : max,
      labels: this.#labels(),
    });
    const label = this.getAttribute("label") ?? view.task;
    this.setAttribute("status", view.status);
    parts.root.className = `root ${view.tone}`;
    setText(parts.label, label);
    const percent = view.fraction === undefined ? undefined : Math.round(view.fraction * 100);
    const share = percent === undefined || !view.isBusy ? "" : ` ${String(percent)} %`;
    setText(parts.status, view.label);
    setText(parts.percent, share);
    setText(parts.problem, view.problem);
    parts.problem.hidden = view.problem === "";
    parts.bar.setAttribute("aria-label", label || view.label);
    parts.bar.setAttribute("aria-valuetext", view.label + share);
    parts.bar.classList.toggle("still", !view.isBusy || view.status === "idle");
    if (percent === undefined) {
      parts.bar.removeAttribute("aria-valuenow");
      parts.fill.style.width = "";
    } else {
      parts.bar.setAttribute("aria-valuenow", String(percent));
      parts.fill.style.width = `${String((view.fraction ?? 0) * 100)}%`;
    }
  }

  #labels(): Record<string, string> {
    try {
      return JSON.parse(this.getAttribute("labels") ?? "{}") as Record<string, string>;
    } catch {
      return {};
    }
  }
}

/** Make the element known to the page, unless it is. */
export function define(): void {
  const { customElements } = globalThis as Partial<typeof globalThis>;
  if (customElements && !customElements.get("run-progress"))
    customElements.define("run-progress", RunProgressElement);
}

declare global {
  interface HTMLElementTagNameMap {
    "run-progress": RunProgressElement;
  }
}

// -- the tree within ------------------------------------------------------------------------------

interface Parts extends Record<
  "root" | "label" | "status" | "percent" | "bar" | "fill" | "problem" | "text",
  HTMLElement
> {
  setText(text: string): void;
}

function makeParts(shadow: ShadowRoot): Parts {
  const make = (name: string, within: ParentNode, attributes: Record<string, string> = {}) => {
    const element = document.createElement("div");
    element.className = name;
    element.setAttribute("part", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    within.append(element);
    return element;
  };
  // No tag and no attribute, which pages may forbid.
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(STYLE);
  shadow.adoptedStyleSheets = [sheet];
  const root = make("root", shadow);
  const header = make("header", root);
  const label = make("label", header);
  const line = make("status", header);
  // Read out when it changes; the percentage is not, as it changes all the time.
  const status = make("state", line, { role: "status", "aria-live": "polite" });
  const percent = make("percent", line, { "aria-hidden": "true" });
  const bar = make("bar", root, {
    role: "progressbar",
    "aria-valuemin": "0",
    "aria-valuemax": "100",
  });
  const fill = make("fill", bar);
  const problem = make("problem", root, { "aria-live": "polite" });
  const text = make("text", root, { role: "log", "aria-live": "polite", tabindex: "0" });
  const shown = text.appendChild(document.createTextNode(""));
  text.hidden = true;
  const setText = (whole: string) => {
    const isAtEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 8;
    // What is there stays, so that a selection does, too.
    if (shown.length < whole.length && whole.startsWith(shown.data))
      shown.appendData(whole.slice(shown.length));
    else if (shown.data !== whole) shown.data = whole;
    text.hidden = whole === "";
    if (isAtEnd) text.scrollTop = text.scrollHeight;
  };
  return { root, label, status, percent, bar, fill, problem, text, setText };
}

function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
