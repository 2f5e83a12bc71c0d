// Chips that count the listed runs of each status, and narrow the list to some of them.

import { byId, make, setPill } from "./dom.js";
import { status, STATUS_NAMES } from "./format.js";

export class StatusFilter {
  #chips = new Map(); // status → button
  #onToggle;

  constructor(onToggle) {
    this.#onToggle = onToggle;
  }

  // Draw a chip for each status that occurs or is chosen.
  draw(runs, chosen) {
    const counts = new Map();
    for (const run of runs) counts.set(run.status, (counts.get(run.status) ?? 0) + 1);
    for (const name of chosen) if (!counts.has(name)) counts.set(name, 0);
    for (const [name, chip] of this.#chips) {
      if (counts.has(name)) continue;
      chip.remove();
      this.#chips.delete(name);
    }
    const rank = (name) => (STATUS_NAMES.indexOf(name) + 1 || STATUS_NAMES.length + 1);
    const names = [...counts.keys()].sort((a, b) => rank(a) - rank(b));
    names.forEach((name, place) => {
      const chip = this.#chipOf(name);
      const here = byId("statuses").children[place];
      if (here !== chip) byId("statuses").insertBefore(chip, here ?? null);
      const [family, words] = status(name);
      setPill(chip, [family, `${words} ${counts.get(name)}`]);
      chip.setAttribute("aria-pressed", String(chosen.has(name)));
    });
    byId("statuses").classList.toggle("choosing", chosen.size > 0);
  }

  #chipOf(name) {
    let chip = this.#chips.get(name);
    if (!chip) {
      chip = make("button", "chip pill");
      chip.type = "button";
      chip.dataset.status = name;
      chip.addEventListener("click", () => this.#onToggle(name));
      this.#chips.set(name, chip);
    }
    return chip;
  }
}
