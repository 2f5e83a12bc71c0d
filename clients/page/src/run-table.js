// The newest runs that the list feed told of: bounded, and never older than what is known.

export class RunTable {
  #runs = new Map();
  #limit;
  #oldest = null; // of a full table; null when not looked up

  constructor(limit) {
    this.#limit = limit;
  }

  get size() {
    return this.#runs.size;
  }

  get isFull() {
    return this.#runs.size >= this.#limit;
  }

  // Take a run's state; tells whether it was news. Around a resume the same state comes twice.
  put(run) {
    const known = this.#runs.get(run.id);
    if (known && known.revision >= run.revision) return false;
    if (!known && this.isFull) {
      this.#oldest ??= this.newestFirst().at(-1);
      if (newerFirst(run, this.#oldest) > 0) return false;
      this.delete(this.#oldest.id);
    }
    this.#runs.set(run.id, run);
    return true;
  }

  delete(id) {
    this.#oldest = null;
    return this.#runs.delete(id);
  }

  clear() {
    this.#oldest = null;
    this.#runs.clear();
  }

  newestFirst() {
    return [...this.#runs.values()].sort(newerFirst);
  }
}

function newerFirst(a, b) {
  return compare(b.createdAt, a.createdAt) || compare(b.id, a.id);
}

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}
