// One run with everything that the token may see of it.

import { byId, make, setPill, setTags, setText } from "./dom.js";
import { duration, pretty, progress, status } from "./format.js";

export class DetailView {
  #metadata = new Map(); // key → {row, value, text}
  #fact = new Map(); // name → {row, value}
  #shownId = null;
  #marking = false; // off for the first drawing of a run

  // notice: a sentence about the feed, or null.
  draw(id, run, notice) {
    byId("detail").hidden = id === null;
    byId("placeholder").hidden = id !== null;
    if (id === null) return;
    if (id !== this.#shownId) this.#forget(id);
    byId("detail-notice").hidden = notice === null;
    setText(byId("detail-notice"), notice ?? "");
    setText(byId("detail-id"), id);
    byId("detail").classList.toggle("unknown", run === null);
    if (run === null) return;
    setText(byId("detail-title"), run.taskIdentifier);
    const shownStatus = status(run.status);
    setPill(byId("detail-status"), shownStatus);
    byId("detail-progress").dataset.family = shownStatus[0];
    setTags(byId("detail-tags"), run.tags);
    this.#drawProgress(progress(run));
    this.#drawFacts(run);
    this.#drawMetadata(run.metadata ?? {});
    this.#drawValue("payload", run.payload, "No payload, or this token may not see it.");
    this.#drawValue("output", run.output, "finishedAt" in run ? "No output." : "Not there yet.");
    byId("error-card").hidden = run.error === undefined;
    if (run.error !== undefined) setText(byId("error"), errorText(run.error));
  }

  #forget(id) {
    this.#shownId = id;
    this.#marking = false;
    this.#metadata.clear();
    byId("metadata").replaceChildren();
    setText(byId("detail-title"), "…");
    setPill(byId("detail-status"), ["off", "…"]);
    byId("detail").scrollTop = 0;
  }

  #drawProgress(value) {
    const line = byId("detail-progress");
    line.hidden = value === null;
    if (value === null) return;
    line.firstElementChild.value = value;
    setText(line.lastElementChild, `${Math.round(value * 100)} %`);
  }

  #drawFacts(run) {
    this.#drawFact("Duration", run.durationMs > 0 ? duration(run.durationMs) : "");
    this.#drawFact("Attempts", String(run.attemptCount));
    this.#drawFact("Number", String(run.number));
    this.#drawFact("Queue", run.queue);
    this.#drawFact("Batch", run.batchId);
    this.#drawFact("Parent", run.parentId);
    this.#drawFact("Cost", run.costInCents > 0 ? `${run.costInCents.toFixed(4)} ¢` : "");
    this.#drawFact("Revision", String(run.revision));
  }

  #drawFact(name, text) {
    let fact = this.#fact.get(name);
    if (!fact) {
      fact = { row: make("div"), value: make("dd") };
      fact.row.append(make("dt", "", name), fact.value);
      this.#fact.set(name, fact);
      byId("facts").append(fact.row);
    }
    fact.row.hidden = !text;
    setText(fact.value, text || "");
  }

  // What changed since the last drawing is marked; on the first one nothing is.
  #drawMetadata(metadata) {
    for (const [key, entry] of this.#metadata) {
      if (Object.hasOwn(metadata, key)) continue;
      entry.row.remove();
      this.#metadata.delete(key);
    }
    for (const [key, value] of Object.entries(metadata)) this.#drawKey(key, value);
    this.#marking = true;
    byId("metadata-none").hidden = this.#metadata.size > 0;
  }

  #drawKey(key, value) {
    let entry = this.#metadata.get(key);
    if (!entry) {
      entry = { row: make("div"), value: make("dd"), text: null };
      entry.row.append(make("dt", "", key), entry.value);
      entry.row.dataset.key = key;
      this.#metadata.set(key, entry);
      byId("metadata").append(entry.row);
    }
    const text = pretty(value);
    if (text === entry.text) return;
    entry.text = text;
    setText(entry.value, text);
    if (this.#marking) highlight(entry.row);
  }

  #drawValue(id, value, absent) {
    const element = byId(id);
    element.classList.toggle("none", value === undefined);
    setText(element, value === undefined ? absent : pretty(value));
  }
}

function errorText({ name, message, stackTrace, causes, ...rest }) {
  const lines = [name ? `${name}: ${message}` : message ?? ""];
  if (stackTrace) lines.push(stackTrace);
  for (const cause of causes ?? []) lines.push(`caused by ${pretty(cause)}`);
  if (Object.keys(rest).length > 0) lines.push(pretty(rest));
  return lines.join("\n").trim();
}

// Begin the fading mark again, also when the last one has not faded yet.
function highlight(row) {
  row.classList.remove("changed");
  void row.offsetWidth;
  row.classList.add("changed");
}
