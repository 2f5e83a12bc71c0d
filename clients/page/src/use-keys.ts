// What the keyboard does outside of fields.

import { useEffect, useEffectEvent } from "react";
import { show, type View } from "./view.js";

/** Whether a key belongs to a field or to the browser. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target as Element | null;
  const isField = target?.matches("input, select, textarea, [contenteditable]") ?? false;
  return isField || event.ctrlKey || event.metaKey || event.altKey || isDialogOpen();
}

function isDialogOpen(): boolean {
  return document.querySelector("dialog[open]") !== null;
}

export function useListKeys(view: View): void {
  const onKey = useEffectEvent((event: KeyboardEvent) => {
    if (event.key === "Escape" && !isDialogOpen()) escape(view);
    if (isTyping(event)) return;
    const walks: Record<string, () => void> = {
      "/": () => document.querySelector<HTMLElement>("#find")?.focus(),
      j: () => {
        walk(1);
      },
      k: () => {
        walk(-1);
      },
    };
    const act = walks[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  useEffect(() => {
    const listener = (event: KeyboardEvent) => {
      onKey(event);
    };
    addEventListener("keydown", listener);
    return () => {
      removeEventListener("keydown", listener);
    };
  }, []);
}

/** Go to the next or previous row: from the one that has the focus, else from the open one. */
export function walk(step: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("#rows .row")];
  const here = rows.findIndex((row) => row === document.activeElement);
  const from = here >= 0 ? here : rows.findIndex((row) => row.ariaCurrent === "true");
  rows[from < 0 ? 0 : Math.min(Math.max(from + step, 0), rows.length - 1)]?.focus();
}

function escape(view: View): void {
  const { activeElement } = document;
  if (activeElement instanceof HTMLElement && activeElement.matches("input, select")) {
    activeElement.blur();
  } else if (view.run) {
    show({ ...view, run: "" });
  }
}
