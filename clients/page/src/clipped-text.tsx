// A text that is cut off when it is long.

import { useState, type ReactElement } from "react";

const MAX_TEXT = 20_000;

/** Shows a text, or its beginning until a person wants all of it. */
export function ClippedText({
  text,
  limit = MAX_TEXT,
}: {
  text: string;
  limit?: number;
}): ReactElement {
  const [isWhole, setWhole] = useState(false);
  if (isWhole || text.length <= limit) return <>{text}</>;
  return (
    <>
      {text.slice(0, limit)}
      {"… "}
      <button
        type="button"
        className="more"
        onClick={() => {
          setWhole(true);
        }}
      >
        show all {text.length.toLocaleString("en")} characters
      </button>
    </>
  );
}
