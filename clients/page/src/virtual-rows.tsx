// A list of which only the rows in view are drawn. All rows have one height.

import { useLayoutEffect, useRef, useState, type ReactElement, type ReactNode } from "react";

const ROW_PX = 26;
const MAX_PX = 416;
const BEYOND = 8; // rows drawn above and below what is in view

export function VirtualRows({
  count,
  first = 0,
  row,
  className,
  label,
  stays,
}: {
  count: number;
  /** Number of the first row. */
  first?: number;
  row: (index: number) => ReactNode;
  className: string;
  label: string;
  /** Keep the end in view for whoever is there. */
  stays: boolean;
}): ReactElement {
  const [top, setTop] = useState(0);
  const list = useRef<HTMLDivElement>(null);
  useStickToEnd(list, stays, first + count);
  const from = Math.max(0, Math.floor(top / ROW_PX) - BEYOND);
  const to = Math.min(count, Math.ceil((top + MAX_PX) / ROW_PX) + BEYOND);
  const rows = [];
  for (let index = from; index < to; index += 1) {
    rows.push(
      <li
        key={first + index}
        style={{ top: index * ROW_PX }}
        aria-setsize={count}
        aria-posinset={index + 1}
      >
        {row(index)}
      </li>,
    );
  }
  return (
    <div
      className={`virtual ${className}`}
      ref={list}
      tabIndex={0}
      role="region"
      aria-label={label}
      onScroll={(event) => {
        setTop(event.currentTarget.scrollTop);
      }}
    >
      <ol style={{ height: count * ROW_PX }}>{rows}</ol>
    </div>
  );
}

const NEAR_END_PX = 30;

/** Scroll to the end whenever `state` changes, unless the person has scrolled away from it. */
export function useStickToEnd(
  list: React.RefObject<HTMLElement | null>,
  stays: boolean,
  state: unknown,
): void {
  const isAtEnd = useRef(stays);
  useLayoutEffect(() => {
    const element = list.current;
    if (!element) return undefined;
    const look = () => {
      isAtEnd.current =
        element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END_PX;
    };
    element.addEventListener("scroll", look, { passive: true });
    return () => {
      element.removeEventListener("scroll", look);
    };
  }, [list]);
  useLayoutEffect(() => {
    const element = list.current;
    if (element && stays && isAtEnd.current) element.scrollTo({ top: element.scrollHeight });
  }, [list, stays, state]);
}
