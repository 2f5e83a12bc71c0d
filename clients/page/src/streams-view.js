// The cards of all streams of the selected run.

import { byId, setText } from "./dom.js";
import { words } from "./feed-words.js";
import { count } from "./format.js";
import { StreamCard } from "./stream-card.js";

export class StreamsView {
  #cards = new Map(); // key → card
  #handlers;

  // handlers: onToggle(key, open), redraw().
  constructor(handlers) {
    this.#handlers = handlers;
  }

  // leftOut: how many streams there are beside these.
  draw(streams, leftOut) {
    const wanted = new Set(streams.map(({ key }) => key));
    for (const [key, card] of this.#cards) {
      if (wanted.has(key)) continue;
      card.element.remove();
      this.#cards.delete(key);
    }
    for (const stream of streams) this.#cardOf(stream.key).draw(stream, words(stream.feed));
    byId("streams-card").hidden = streams.length === 0;
    byId("streams-more").hidden = leftOut === 0;
    setText(byId("streams-more"), `and ${count(leftOut, "more stream")}`);
  }

  // Cards are bound to what they have drawn; another run begins with none.
  clear() {
    this.#cards.clear();
    byId("streams").replaceChildren();
  }

  #cardOf(key) {
    let card = this.#cards.get(key);
    if (!card) {
      const { onToggle, redraw } = this.#handlers;
      card = new StreamCard(key, { onToggle: (open) => onToggle(key, open), redraw });
      this.#cards.set(key, card);
      byId("streams").append(card.element);
    }
    return card;
  }
}
