// The list of runs: one row each, newest first, moved as little as possible.

import { byId, fromTemplate, setPill, setTags, setText } from "./dom.js";
import { age, progress, status } from "./format.js";

export class ListView {
  #list = byId("rows");
  #rows = new Map(); // run id → {item, run}
  #hrefOf;

  constructor(hrefOf) {
    this.#hrefOf = hrefOf;
    this.#list.addEventListener("keydown", (event) => this.#walk(event));
  }

  get size() {
    return this.#rows.size;
  }

  draw(runs, selectedId) {
    const wanted = new Set(runs.map((run) => run.id));
    for (const [id, { item }] of this.#rows) {
      if (wanted.has(id)) continue;
      item.remove();
      this.#rows.delete(id);
    }
    let here = this.#list.firstElementChild;
    for (const run of runs) {
      const row = this.#rowOf(run);
      if (row.item === here) here = here.nextElementSibling;
      else this.#list.insertBefore(row.item, here);
      if (row.run !== run) this.#fill(row, run);
      this.#mark(row, run.id === selectedId);
    }
    this.drawAges();
  }

  drawAges() {
    const now = Date.now();
    for (const { item, run } of this.#rows.values()) {
      setText(item.querySelector(".age"), age((now - Date.parse(run.createdAt)) / 1000));
    }
  }

  focus(id) {
    this.#rows.get(id)?.item.firstElementChild.focus();
  }

  // Rows carry the filter in their links; after a change of the filter they are made anew.
  clear() {
    this.#rows.clear();
    this.#list.replaceChildren();
  }

  #rowOf(run) {
    let row = this.#rows.get(run.id);
    if (!row) {
      row = { item: fromTemplate("row"), run: null };
      row.item.firstElementChild.href = this.#hrefOf(run.id);
      this.#rows.set(run.id, row);
    }
    return row;
  }

  #fill(row, run) {
    const { item } = row;
    row.run = run;
    item.dataset.run = run.id;
    const shownStatus = status(run.status);
    setPill(item.querySelector(".pill"), shownStatus);
    item.firstElementChild.dataset.family = shownStatus[0];
    setText(item.querySelector(".task"), run.taskIdentifier);
    setText(item.querySelector(".id"), run.id);
    setTags(item.querySelector(".tags"), run.tags);
    const bar = item.querySelector("progress");
    const value = progress(run);
    bar.hidden = value === null;
    if (value !== null) bar.value = value;
  }

  #mark(row, selected) {
    const link = row.item.firstElementChild;
    if (selected) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }

  #walk(event) {
    const item = event.target.closest("li");
    const steps = { ArrowDown: item?.nextElementSibling, ArrowUp: item?.previousElementSibling };
    if (!(event.key in steps)) return;
    event.preventDefault();
    steps[event.key]?.firstElementChild.focus();
  }
}
