// What happens on the wire: state and cursor of each feed, and the last raw events.

import { byId, fromTemplate, make, setText } from "./dom.js";
import { clipped, count, prettyJson, time } from "./format.js";

const MAX_EVENTS = 50; // of each feed
const MAX_EVENT_TEXT = 4000;

export class WireView {
  #feeds = new Map(); // name → {element, fresh: events not drawn yet, items: drawn, newest first}

  // Remember an event for the next drawing; of many, the last ones of each feed.
  note(name, event) {
    const { fresh } = this.#known(name);
    fresh.push({
      at: new Date().toISOString(),
      name,
      type: event.type,
      id: event.id,
      data: clipped(event.data, MAX_EVENT_TEXT),
    });
    if (fresh.length > MAX_EVENTS) fresh.shift();
  }

  // feeds: [[name, feed, words for its state]]
  draw(feeds) {
    const wanted = new Set(feeds.map(([name]) => name));
    for (const [name, { element, items }] of this.#feeds) {
      if (wanted.has(name)) continue;
      for (const gone of [element, ...items]) gone.remove();
      this.#feeds.delete(name);
    }
    for (const [name, feed, words] of feeds) this.#drawFeed(name, feed, words);
    this.#drawEvents();
  }

  #known(name) {
    let known = this.#feeds.get(name);
    if (!known) {
      known = { element: fromTemplate("feed"), fresh: [], items: [] };
      known.element.dataset.feed = name;
      this.#feeds.set(name, known);
    }
    return known;
  }

  #drawEvents() {
    const raw = byId("raw");
    const fresh = [...this.#feeds.values()].flatMap((known) => known.fresh.splice(0));
    fresh.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
    for (const event of fresh) {
      const { items } = this.#feeds.get(event.name);
      const item = eventItem(event);
      raw.prepend(item);
      items.unshift(item);
      if (items.length > MAX_EVENTS) items.pop().remove();
    }
    byId("raw-none").hidden = raw.childElementCount > 0;
  }

  #drawFeed(name, feed, words) {
    const { element } = this.#known(name);
    if (!element.isConnected) byId("feeds").append(element);
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

function eventItem({ at, name, type, id, data }) {
  const item = make("li");
  const details = make("details");
  const summary = make("summary");
  summary.append(
    make("span", "at", time(at)),
    make("span", "from", name),
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
