// What happens on the wire: state and cursor of each feed, and the last raw events.

import { byId, fromTemplate, make, setText } from "./dom.js";
import { clipped, pretty, time } from "./format.js";

const MAX_EVENTS = 50;
const MAX_EVENT_TEXT = 4000;

export class WireView {
  #events = []; // oldest first, not drawn yet
  #feeds = new Map(); // name → element

  // Remember an event for the next drawing; of many, the last ones.
  note(feedName, event) {
    this.#events.push({
      at: new Date().toISOString(),
      feedName,
      type: event.type,
      id: event.id,
      data: clipped(event.data, MAX_EVENT_TEXT),
    });
    if (this.#events.length > MAX_EVENTS) this.#events.shift();
  }

  // feeds: [[name, feed, words for its state]]
  draw(feeds) {
    const wanted = new Set(feeds.map(([name]) => name));
    for (const [name, element] of this.#feeds) {
      if (wanted.has(name)) continue;
      element.remove();
      this.#feeds.delete(name);
    }
    for (const [name, feed, words] of feeds) this.#drawFeed(name, feed, words);
    const raw = byId("raw");
    for (const event of this.#events) raw.prepend(eventItem(event));
    this.#events = [];
    while (raw.childElementCount > MAX_EVENTS) raw.lastElementChild.remove();
    byId("raw-none").hidden = raw.childElementCount > 0;
  }

  #drawFeed(name, feed, words) {
    let element = this.#feeds.get(name);
    if (!element) {
      element = fromTemplate("feed");
      element.dataset.feed = name;
      this.#feeds.set(name, element);
      byId("feeds").append(element);
    }
    element.dataset.state = feed.state;
    setText(element.querySelector(".feed-name"), name);
    setText(element.querySelector(".feed-state"), words);
    setText(
      element.querySelector(".feed-numbers"),
      `SSE over fetch · ${count(feed.events, "event")} · ${count(Math.max(0, feed.connections - 1), "reconnect")}`,
    );
    setText(element.querySelector(".feed-message"), feed.state === "ended" ? "" : feed.message);
    setText(element.querySelector("code"), feed.cursor || "none yet");
  }
}

function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function eventItem({ at, feedName, type, id, data }) {
  const item = make("li");
  const details = make("details");
  const summary = make("summary");
  summary.append(
    make("span", "at", time(at)),
    make("span", "from", feedName),
    make("span", "type", type),
    make("span", "data", data),
  );
  details.append(summary);
  details.addEventListener(
    "toggle",
    () => details.append(make("pre", "", `${id === null ? "" : `id: ${id}\n`}${prettyJson(data)}`)),
    { once: true },
  );
  item.append(details);
  return item;
}

function prettyJson(text) {
  try {
    return pretty(JSON.parse(text));
  } catch {
    return text; // clipped
  }
}
