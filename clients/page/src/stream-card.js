// One stream on the page: as text that grows, or as a list of parts.

import { fromTemplate, make, setText } from "./dom.js";
import { clipped, count, prettyJson, time } from "./format.js";
import { MAX_CHARACTERS, MAX_PARTS } from "./stream-log.js";

const MAX_LINE = 300;
const NEAR_END_PIXELS = 24;

export class StreamCard {
  element = fromTemplate("stream");
  #chosen = null; // "text" or "parts", once a person said so
  #mode = null; // as drawn
  #generation = -1;
  #first = 0; // offsets of what is drawn: from here
  #next = 0; // up to, not including, here
  #text = this.#find(".stream-text");
  #parts = this.#find(".stream-parts");
  #redraw;

  constructor(key, { onToggle, redraw }) {
    this.#redraw = redraw;
    this.element.dataset.stream = key;
    setText(this.#find(".stream-key"), key);
    this.element.addEventListener("toggle", () => onToggle(this.element.open));
    for (const button of this.element.querySelectorAll("[data-mode]")) {
      button.addEventListener("click", () => this.#choose(button.dataset.mode));
    }
  }

  // state: words for the feed's state.
  draw({ log, feed, open }, state) {
    if (this.element.open !== open) this.element.open = open;
    this.element.dataset.state = feed.state;
    setText(this.#find(".stream-state"), state);
    setText(this.#find(".stream-numbers"), log.next > 0 ? count(log.next, "part") : "");
    this.#drawNote(log, feed);
    this.#setMode(this.#chosen ?? (log.isText === false ? "parts" : "text"));
    if (open) this.#drawParts(log, feed.state === "ended");
  }

  #choose(mode) {
    this.#chosen = mode;
    this.#redraw();
  }

  #setMode(mode) {
    if (mode === this.#mode) return;
    this.#mode = mode;
    this.#generation = -1;
    this.#text.hidden = mode !== "text";
    this.#parts.hidden = mode !== "parts";
    for (const button of this.element.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    }
  }

  #drawNote(log, feed) {
    const notes = [];
    if (log.begin > 0) notes.push(`The gateway keeps this stream from part ${log.begin} on.`);
    if (log.first > log.begin) {
      const most = `${count(MAX_PARTS, "part")} or ${count(MAX_CHARACTERS, "character")}`;
      notes.push(`Parts before ${log.first} were dropped here: this page holds ${most}.`);
    }
    if (feed.state === "refused") notes.push(feed.message);
    if (feed.state === "ended" && log.next === 0) notes.push("Nothing was written.");
    this.#find(".stream-note").hidden = notes.length === 0;
    setText(this.#find(".stream-note"), notes.join(" "));
  }

  // Only what is new is added, and what the log dropped is taken away. The end stays in view for
  // whoever was there; what had ended before it was drawn is read from its beginning.
  #drawParts(log, ended) {
    const list = this.#mode === "text" ? this.#text : this.#parts;
    if (this.#generation !== log.generation || this.#next < log.first) {
      this.#text.replaceChildren();
      this.#parts.replaceChildren();
      this.#generation = log.generation;
      this.#first = this.#next = log.first;
    }
    if (this.#next === log.next) return;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END_PIXELS;
    const follows = atEnd && (list.hasChildNodes() || !ended);
    for (; this.#first < log.first; this.#first += 1) list.firstChild.remove();
    const fresh = log.parts.slice(this.#next - log.first);
    list.append(...fresh.map(this.#mode === "text" ? textNode : partItem));
    this.#next = log.next;
    if (follows) list.scrollTop = list.scrollHeight;
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }
}

function textNode({ line, text }) {
  return document.createTextNode(text ?? `${line}\n`);
}

function partItem({ offset, at, line }) {
  const item = make("li");
  const details = make("details");
  const summary = make("summary");
  summary.append(
    make("span", "offset", String(offset)),
    make("span", "at", time(at)),
    make("span", "data", clipped(line, MAX_LINE)),
  );
  details.append(summary);
  const unfold = () => details.append(make("pre", "", prettyJson(line)));
  details.addEventListener("toggle", unfold, { once: true });
  item.append(details);
  return item;
}
