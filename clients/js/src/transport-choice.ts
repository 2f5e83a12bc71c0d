// Which transport the next connection uses. Pure.

import { LONGEST_SET_ASIDE_MS, SET_ASIDE_MS } from "./constants.js";
import type { TransportKind } from "./link.js";

/**
 * The first of the allowed ones, unless it does not get through where another one does.
 *
 * While nothing gets through, all take turns. Once one did, those that failed before it are set
 * aside, each time for twice as long.
 */
export class TransportChoice {
  readonly #allowed: readonly [TransportKind, ...TransportKind[]];
  readonly #failed = new Set<TransportKind>(); // since one got through
  readonly #aside = new Map<TransportKind, { until: number; span: number }>();

  constructor(allowed: readonly [TransportKind, ...TransportKind[]]) {
    this.#allowed = allowed;
  }

  next(now: number): TransportKind {
    const untried = this.#allowed.filter((kind) => !this.#failed.has(kind));
    if (untried.length === 0) this.#failed.clear();
    const [first = this.#allowed[0], ...others] = untried;
    return [first, ...others].find((kind) => this.#asideUntil(kind) <= now) ?? first;
  }

  /** When the best one may be tried again in place of this one; undefined if this is the best. */
  betterAt(kind: TransportKind): number | undefined {
    const [best] = this.#allowed;
    return best === kind ? undefined : this.#asideUntil(best);
  }

  /** Nothing was heard over it. */
  failed(kind: TransportKind): void {
    this.#failed.add(kind);
  }

  succeeded(kind: TransportKind, now: number): void {
    for (const other of this.#failed) {
      const before = this.#aside.get(other)?.span ?? SET_ASIDE_MS / 2;
      const span = Math.min(before * 2, LONGEST_SET_ASIDE_MS);
      this.#aside.set(other, { until: now + span, span });
    }
    this.#failed.clear();
    this.#aside.delete(kind);
  }

  /** The network is another one: nothing is known of it. */
  forget(): void {
    this.#failed.clear();
    this.#aside.clear();
  }

  #asideUntil(kind: TransportKind): number {
    return this.#aside.get(kind)?.until ?? 0;
  }
}
