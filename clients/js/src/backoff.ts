// How long to wait before the next attempt.

import { FIRST_DELAY_MS, LONGEST_DELAY_MS } from "./constants.js";

/**
 * Milliseconds before an attempt, counted from 0: twice as long each time, up to half a minute.
 *
 * Half of it is chance, so that many pages do not come back in one moment.
 */
export function delayBefore(attempt: number, random: number = Math.random()): number {
  const longest = Math.min(FIRST_DELAY_MS * 2 ** attempt, LONGEST_DELAY_MS);
  return longest * (0.5 + random / 2);
}
