// One stream: as text that grows, or as its parts.

import type { Progress, StreamSnapshot } from "@runcast/client";
import { useRunStream } from "@runcast/client/react";
import { useRef, useState, type ReactElement } from "react";
import { CopyButton } from "./copy-button.js";
import { clipped, count, time } from "./format.js";
import { isText, lineOf, linesOf } from "./stream-words.js";
import { extended, type Block } from "./text-blocks.js";
import { useStickToEnd, VirtualRows } from "./virtual-rows.js";

/** Equal wherever a stream is followed, so that it is followed once. */
export const STREAM = {
  maxParts: 10_000,
  maxText: 1_000_000,
  throttleMs: 100,
} as const;
const MAX_LINE = 300;
const MAX_LINES = 1000;

export function StreamCard({
  runId,
  streamKey,
  isOver,
  isOpen,
  onToggle,
}: {
  runId: string;
  streamKey: string;
  /** The run is finished. */
  isOver: boolean;
  isOpen: boolean;
  onToggle: (isOpen: boolean) => void;
}): ReactElement {
  const stream = useRunStream(runId, streamKey, { ...STREAM, enabled: isOpen });
  const [chosen, setChosen] = useState<"text" | "parts">();
  const [stays] = useState(!isOver); // what had ended before is read from its beginning
  const mode = chosen ?? (isText(stream.parts) ? "text" : "parts");
  const total = stream.firstOffset + stream.parts.length;
  return (
    <details
      className="stream"
      data-stream={streamKey}
      data-state={stream.status}
      open={isOpen}
      onToggle={(event) => {
        onToggle(event.currentTarget.open);
      }}
    >
      <summary>
        <code className="stream-key">{streamKey}</code>
        <span className="stream-state">{isOpen ? feedWords(stream) : "Not followed"}</span>
        <span className="stream-numbers">{total > 0 && count(total, "part")}</span>
      </summary>
      <div className="stream-body">
        <div className="modes" role="group" aria-label="Show the stream as">
          {(["text", "parts"] as const).map((each) => (
            <button
              key={each}
              type="button"
              aria-pressed={mode === each}
              onClick={() => {
                setChosen(each);
              }}
            >
              {each === "text" ? "Text" : "Parts"}
            </button>
          ))}
        </div>
        <Note stream={stream} mode={mode} />
        {isOpen && mode === "text" && <StreamText stream={stream} stays={stays} />}
        {isOpen && mode === "parts" && (
          <StreamParts stream={stream} name={streamKey} stays={stays} />
        )}
      </div>
    </details>
  );
}

export function feedWords({ status, endReason }: Progress): string {
  const words = {
    idle: "Not followed",
    connecting: "Connecting",
    live: "Live",
    retrying: "Retrying",
    ended: `Ended: ${endReason ?? ""}`,
    failed: "Refused",
  };
  return words[status];
}

function Note({
  stream,
  mode,
}: {
  stream: StreamSnapshot;
  mode: "text" | "parts";
}): ReactElement | null {
  const { firstOffset, parts, textOffset, status, error, lastReset } = stream;
  const notes = [];
  if (lastReset) notes.push(`Begun again: ${lastReset.message}`);
  if (mode === "parts" && firstOffset > 0)
    notes.push(
      `This page holds the newest ${count(parts.length, "part")}; they begin with part ${firstOffset}.`,
    );
  if (mode === "text" && textOffset > 0)
    notes.push(`${count(textOffset, "character")} before this are not held by the page.`);
  if (error) notes.push(error.message);
  if (status === "ended" && firstOffset + parts.length === 0) notes.push("Nothing was written.");
  return notes.length > 0 ? <p className="stream-note">{notes.join(" ")}</p> : null;
}

function StreamText({
  stream: { text, textOffset, parts },
  stays,
}: {
  stream: StreamSnapshot;
  stays: boolean;
}): ReactElement {
  const hasText = text !== "" || parts.length === 0;
  const shown = hasText ? text : linesOf(parts.slice(-MAX_LINES));
  const [blocks, setBlocks] = useState<readonly Block[]>([]);
  const newer = extended(blocks, shown, hasText ? textOffset : 0);
  if (newer !== blocks) setBlocks(newer);
  const box = useRef<HTMLDivElement>(null);
  useStickToEnd(box, stays, newer);
  return (
    <>
      <div className="stream-text" ref={box} tabIndex={0}>
        {newer.map((block) => (
          <div key={block.at}>{block.text}</div>
        ))}
      </div>
      {shown !== "" && <CopyButton text={shown} label="Copy text" />}
    </>
  );
}

function StreamParts({
  stream: { parts, times, firstOffset },
  name,
  stays,
}: {
  stream: StreamSnapshot;
  name: string;
  stays: boolean;
}): ReactElement {
  const [picked, setPicked] = useState<number>(); // an offset
  const part = picked === undefined ? undefined : parts[picked - firstOffset];
  return (
    <>
      <VirtualRows
        className="stream-parts"
        label={`Parts of ${name}`}
        count={parts.length}
        first={firstOffset}
        stays={stays}
        row={(index) => {
          const offset = firstOffset + index;
          return (
            <button
              type="button"
              className="part"
              aria-expanded={picked === offset}
              onClick={() => {
                setPicked(picked === offset ? undefined : offset);
              }}
            >
              <span className="offset">{offset}</span>
              <span className="at">{time(times[index] ?? 0)}</span>
              <span className="data">{clipped(dataOf(parts[index]), MAX_LINE)}</span>
            </button>
          );
        }}
      />
      {part !== undefined && <pre className="picked">{prettyPart(part)}</pre>}
    </>
  );
}

function dataOf(part: unknown): string {
  return typeof part === "string" ? JSON.stringify(part) : lineOf(part);
}

function prettyPart(part: unknown): string {
  return typeof part === "string" ? part : JSON.stringify(part, null, 2);
}
