// What a page hears of its surroundings; elsewhere nothing.

export interface Surroundings {
  /** The network, or the person, is back: whatever waits should not wait any longer. */
  back(isNewNetwork: boolean): void;
  /** The page is put away, and may come back as it was: browsers keep none with a connection. */
  away(): void;
}

/** Listen until the returned function is called. */
export function listenToPage(surroundings: Surroundings): () => void {
  const { document: page, addEventListener } = globalThis as Partial<typeof globalThis>;
  if (typeof addEventListener !== "function") return () => undefined;
  const stop = new AbortController();
  const on = (target: EventTarget, type: string, then: () => void) => {
    target.addEventListener(type, then, { signal: stop.signal });
  };
  const back = () => {
    surroundings.back(false);
  };
  for (const type of ["online", "offline"]) {
    on(globalThis, type, () => {
      surroundings.back(true);
    });
  }
  on(globalThis, "pageshow", back);
  on(globalThis, "pagehide", () => {
    surroundings.away();
  });
  if (page) {
    on(page, "resume", back);
    on(page, "visibilitychange", () => {
      if (page.visibilityState === "visible") back();
    });
  }
  return () => {
    stop.abort();
  };
}
