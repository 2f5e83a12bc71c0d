// Copies a text; where the browser does not let it, as over plain HTTP, there is no button.

import { useEffect, useState, type ReactElement } from "react";

export function CopyButton({
  text,
  label = "Copy",
}: {
  text: string;
  label?: string;
}): ReactElement | null {
  const [isDone, setDone] = useState(false);
  useEffect(() => {
    if (!isDone) return undefined;
    const timer = setTimeout(() => {
      setDone(false);
    }, 1500);
    return () => {
      clearTimeout(timer);
    };
  }, [isDone]);
  const { clipboard } = navigator as Partial<Navigator>;
  if (!clipboard) return null;
  return (
    <button
      type="button"
      className="copy"
      onClick={() => {
        clipboard.writeText(text).then(
          () => {
            setDone(true);
          },
          () => undefined,
        );
      }}
    >
      {isDone ? "Copied" : label}
    </button>
  );
}
