// A payload or an output: as a tree to unfold, or as JSON.

import { useState, type ReactElement } from "react";
import { ClippedText } from "./clipped-text.js";
import { CopyButton } from "./copy-button.js";
import { isBranch } from "./tree-changes.js";
import { ValueTree } from "./value-tree.js";

export function Value({
  id,
  title,
  value,
  absent,
}: {
  id: string;
  title: string;
  value: unknown;
  absent: string;
}): ReactElement {
  const [isJson, setJson] = useState(false);
  const isThere = value !== undefined && value !== null;
  return (
    <section className="card">
      <h3>{title}</h3>
      {isBranch(value) && (
        <div className="modes" role="group" aria-label={`Show the ${id} as`}>
          {[false, true].map((each) => (
            <button
              key={String(each)}
              type="button"
              aria-pressed={isJson === each}
              onClick={() => {
                setJson(each);
              }}
            >
              {each ? "JSON" : "Tree"}
            </button>
          ))}
        </div>
      )}
      <div id={id} className="value-box">
        {!isThere && <p className="none">{absent}</p>}
        {isThere && (isJson || !isBranch(value)) && <Json value={value} />}
        {isBranch(value) && !isJson && <ValueTree value={value} label={title} />}
      </div>
    </section>
  );
}

function Json({ value }: { value: unknown }): ReactElement {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return (
    <div className="json">
      <pre tabIndex={0}>
        <ClippedText text={text} />
      </pre>
      <CopyButton text={text} />
    </div>
  );
}
