// The life of a run as a bar of spans, and its moments with what lay between them.

import { byId, make, setText } from "./dom.js";
import { duration, time } from "./format.js";
import { spansOf } from "./run-spans.js";

const MOMENTS = [
  ["Created", "createdAt"],
  ["Delayed until", "delayedUntil"],
  ["Queued", "queuedAt"],
  ["Started", "startedAt"],
  ["Finished", "finishedAt"],
  ["Expired", "expiredAt"],
];

export class TimelineView {
  #bar = byId("timeline-bar");
  #legend = byId("timeline-spans");
  #moments = byId("timeline-moments");

  draw(run, now) {
    const spans = spansOf(run, now);
    this.#drawBar(spans);
    this.#drawLegend(spans);
    this.#drawMoments(run);
    const whole = spans.at(-1).to - Date.parse(run.createdAt);
    setText(byId("timeline-whole"), duration(Math.max(0, whole)));
  }

  #drawBar(spans) {
    const whole = Math.max(1, spans.at(-1).to - spans[0].from);
    fit(this.#bar, spans.length, () => make("span"));
    spans.forEach((span, place) => {
      const piece = this.#bar.children[place];
      piece.dataset.family = span.family;
      piece.classList.toggle("open", span.open);
      piece.style.flexGrow = String((span.to - span.from) / whole);
    });
  }

  #drawLegend(spans) {
    fit(this.#legend, spans.length, () => {
      const item = make("li");
      item.append(make("span", "name"), make("span", "lasted"));
      return item;
    });
    spans.forEach((span, place) => {
      const item = this.#legend.children[place];
      item.dataset.family = span.family;
      setText(item.firstElementChild, span.name);
      setText(item.lastElementChild, duration(span.to - span.from));
    });
  }

  #drawMoments(run) {
    const known = MOMENTS.filter(([, field]) => run[field]);
    known.sort(([, a], [, b]) => Date.parse(run[a]) - Date.parse(run[b]));
    fit(this.#moments, known.length, () => {
      const row = make("div");
      row.append(make("dt"), make("dd"));
      return row;
    });
    known.forEach(([name, field], place) => {
      const row = this.#moments.children[place];
      setText(row.firstElementChild, name);
      setText(row.lastElementChild, time(run[field]));
    });
  }
}

// Make an element have so many children.
function fit(element, wanted, create) {
  while (element.childElementCount > wanted) element.lastElementChild.remove();
  while (element.childElementCount < wanted) element.append(create());
}
