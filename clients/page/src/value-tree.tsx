// A JSON value as a tree. What changed is lit up for a moment; only what is unfolded is drawn.

import { useState, type ReactElement } from "react";
import { ClippedText } from "./clipped-text.js";
import { clipped } from "./format.js";
import { below, isBranch } from "./tree-changes.js";

const FIRST_ENTRIES = 100;
const MORE_ENTRIES = 1000;
const OPEN_DEPTH = 2;
const MAX_OPEN_ENTRIES = 30;
const MAX_TEXT = 500;
const GLANCE = 4;
const GLANCE_TEXT = 24;

type Places = ReadonlyMap<string, number>;
const UNCHANGED: Places = new Map();

export function ValueTree({
  value,
  label,
  places = UNCHANGED,
}: {
  value: object;
  label: string;
  places?: Places;
}): ReactElement {
  return <Entries value={value} path="" places={places} depth={0} label={label} />;
}

function Entries({
  value,
  path,
  places,
  depth,
  label,
}: {
  value: object;
  path: string;
  places: Places;
  depth: number;
  label?: string;
}): ReactElement {
  const [limit, setLimit] = useState(FIRST_ENTRIES);
  const keys = Object.keys(value);
  return (
    <ul className="tree" aria-label={label}>
      {keys.slice(0, limit).map((key) => (
        <Entry
          key={key}
          name={key}
          value={(value as Record<string, unknown>)[key]}
          path={below(path, key)}
          places={places}
          depth={depth}
          mayOpen={depth < OPEN_DEPTH && keys.length <= MAX_OPEN_ENTRIES}
        />
      ))}
      {keys.length > limit && (
        <li>
          <button
            type="button"
            className="more"
            onClick={() => {
              setLimit(limit + MORE_ENTRIES);
            }}
          >
            show {Math.min(MORE_ENTRIES, keys.length - limit).toLocaleString("en")} more of{" "}
            {keys.length.toLocaleString("en")}
          </button>
        </li>
      )}
    </ul>
  );
}

function Entry({
  name,
  value,
  path,
  places,
  depth,
  mayOpen,
}: {
  name: string;
  value: unknown;
  path: string;
  places: Places;
  depth: number;
  mayOpen: boolean;
}): ReactElement {
  const size = isBranch(value) ? Object.keys(value).length : 0;
  const [isOpen, setOpen] = useState(mayOpen && size <= MAX_OPEN_ENTRIES);
  const isUnfolded = isOpen && size > 0;
  const change = isUnfolded ? undefined : places.get(path);
  return (
    <li data-key={name} className={change === undefined ? undefined : "changed"}>
      <div className="entry">
        {/* Made anew with each change, so that it begins to fade again. */}
        {change !== undefined && <span className="flash" key={change} />}
        {size > 0 ? (
          <button
            type="button"
            className="key"
            aria-expanded={isOpen}
            onClick={() => {
              setOpen(!isOpen);
            }}
          >
            {name}
          </button>
        ) : (
          <span className="key">{name}</span>
        )}
        {!isUnfolded && <Leaf value={value} size={size} />}
      </div>
      {isUnfolded && isBranch(value) && (
        <Entries value={value} path={path} places={places} depth={depth + 1} />
      )}
    </li>
  );
}

function Leaf({ value, size }: { value: unknown; size: number }): ReactElement {
  if (typeof value === "string") {
    return (
      <span className="leaf text">
        <ClippedText text={value} limit={MAX_TEXT} />
      </span>
    );
  }
  if (isBranch(value)) {
    return (
      <span className="leaf folded">
        {Array.isArray(value) ? `[${size || ""}]` : glance(value)}
      </span>
    );
  }
  return <span className={`leaf ${typeof value}`}>{String(value)}</span>;
}

/** The first entries of an object, in one line. */
function glance(value: object): string {
  const entries = Object.entries(value) as [string, unknown][];
  const shown = entries.slice(0, GLANCE).map(([key, inner]) => `${key}: ${word(inner)}`);
  if (entries.length > GLANCE) shown.push("…");
  return `{${shown.join(", ")}}`;
}

function word(value: unknown): string {
  if (Array.isArray(value)) return `[${value.length || ""}]`;
  return isBranch(value) ? "{…}" : clipped(String(value), GLANCE_TEXT);
}
