// Small pieces that show something of a run.

import type { ReactElement } from "react";
import { statusOf } from "./format.js";

export function Pill({
  status,
  id,
  large = false,
}: {
  status: string | undefined;
  id?: string;
  large?: boolean;
}): ReactElement {
  const [family, words] = status === undefined ? (["off", "…"] as const) : statusOf(status);
  return (
    <span className={large ? "pill large" : "pill"} id={id} data-family={family}>
      {words}
    </span>
  );
}

export function Tags({
  tags,
  as: List,
  id,
}: {
  tags: readonly string[];
  as: "ul" | "span";
  id?: string;
}): ReactElement | null {
  if (tags.length === 0) return List === "span" ? <span className="tags" /> : null;
  const Item = List === "ul" ? "li" : "span";
  return (
    <List className="tags" id={id} aria-label={List === "ul" ? "Tags" : undefined}>
      {tags.map((tag) => (
        <Item className="tag" key={tag}>
          {tag}
        </Item>
      ))}
    </List>
  );
}

export function ProgressBar({
  value,
  status,
}: {
  value: number | undefined;
  status: string;
}): ReactElement | null {
  if (value === undefined) return null;
  return <progress max={1} value={value} aria-label="Progress" data-family={statusOf(status)[0]} />;
}
