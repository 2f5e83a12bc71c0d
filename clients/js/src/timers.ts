// Timers by name: setting one takes the place of the one of that name.

import { LONGEST_TIMER_MS } from "./constants.js";

export class Timers<Name extends string> {
  readonly #running = new Map<Name, ReturnType<typeof setTimeout>>();

  after(name: Name, ms: number, then: () => void): void {
    this.clear(name);
    const run = () => {
      this.#running.delete(name);
      then();
    };
    this.#running.set(name, setTimeout(run, Math.min(Math.max(ms, 0), LONGEST_TIMER_MS)));
  }

  isSet(name: Name): boolean {
    return this.#running.has(name);
  }

  clear(...names: Name[]): void {
    for (const name of names) {
      clearTimeout(this.#running.get(name));
      this.#running.delete(name);
    }
  }
}
