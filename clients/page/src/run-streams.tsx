// The streams of a run. The first few are followed; others once they are unfolded.

import type { TransportKind } from "@runcast/client";
import { useState, type ReactElement } from "react";
import { count } from "./format.js";
import { StreamCard } from "./stream-card.js";
import { streamCommand, Teach } from "./teach.js";

const MAX_STREAMS = 50;
const FIRST_OPEN = 3;

export function RunStreams({
  runId,
  keys,
  isOver,
  transport,
}: {
  runId: string;
  keys: readonly string[];
  isOver: boolean;
  transport: TransportKind | undefined;
}): ReactElement | null {
  const [chosen, setChosen] = useState<ReadonlyMap<string, boolean>>(new Map());
  const shown = keys.slice(0, MAX_STREAMS);
  const isOpen = (key: string) => chosen.get(key) ?? shown.indexOf(key) < FIRST_OPEN;
  const toggle = (key: string, open: boolean) => {
    if (open === isOpen(key)) return;
    const next = new Map(chosen).set(key, open);
    // Each event stream takes one of the six connections that a browser opens to a host.
    if (open && transport === "sse") {
      const others = shown.filter((each) => each !== key && isOpen(each));
      for (const each of others.slice(0, others.length - FIRST_OPEN + 1)) next.set(each, false);
    }
    setChosen(next);
  };
  if (keys.length === 0 && isOver) return null;
  return (
    <section className="card" id="streams-card">
      <h3>Streams</h3>
      {keys.length === 0 && (
        <Teach command={streamCommand(runId)}>No stream yet. This writes to one:</Teach>
      )}
      {shown.map((key) => (
        <StreamCard
          key={key}
          runId={runId}
          streamKey={key}
          isOver={isOver}
          isOpen={isOpen(key)}
          onToggle={(open) => {
            toggle(key, open);
          }}
        />
      ))}
      {keys.length > MAX_STREAMS && (
        <p className="none" id="streams-more">
          and {count(keys.length - MAX_STREAMS, "more stream")}
        </p>
      )}
    </section>
  );
}
