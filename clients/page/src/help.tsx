// The keys of this page, in a dialog.

import { useEffect, useRef, type ReactElement } from "react";
import { isTyping } from "./use-keys.js";

const KEYS = [
  ["/", "find a run in the list, or open one by its id"],
  ["j  k", "next and previous run"],
  ["Enter", "open the run"],
  ["Esc", "close the run, leave the field"],
  ["?", "these keys"],
] as const;
const OPEN = "runcast-help";

export function openHelp(): void {
  dispatchEvent(new Event(OPEN));
}

export function Help(): ReactElement {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const stop = new AbortController();
    const { signal } = stop;
    const open = () => dialog.current?.showModal();
    addEventListener(OPEN, open, { signal });
    addEventListener(
      "keydown",
      (event) => {
        if (event.key === "?" && !isTyping(event)) open();
      },
      { signal },
    );
    return () => {
      stop.abort();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      id="help"
      aria-labelledby="help-title"
      onClick={(event) => {
        if (event.target === dialog.current) dialog.current.close();
      }}
    >
      <form method="dialog">
        <h2 id="help-title">Keys</h2>
        <dl>
          {KEYS.map(([key, meaning]) => (
            <div key={key}>
              <dt>
                {key.split("  ").map((each) => (
                  <kbd key={each}>{each}</kbd>
                ))}
              </dt>
              <dd>{meaning}</dd>
            </div>
          ))}
        </dl>
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
