// The metadata of a run: a tree that shows what changed.

import type { Run } from "@runcast/client";
import { useState, type ReactElement } from "react";
import { metadataCommand, Teach } from "./teach.js";
import { isBranch, withNewer, type Changes } from "./tree-changes.js";
import { ValueTree } from "./value-tree.js";

export function Metadata({ run }: { run: Run }): ReactElement {
  const metadata: unknown = run.metadata;
  const [changes, setChanges] = useState<Changes>({
    value: metadata,
    number: 0,
    places: new Map(),
  });
  const newer = withNewer(changes, metadata);
  if (newer !== changes) setChanges(newer);
  const isThere = isBranch(metadata) && Object.keys(metadata).length > 0;
  return (
    <section className="card" id="metadata-card">
      <h3>Metadata</h3>
      <div id="metadata">
        {isThere ? (
          <ValueTree value={metadata} label="Metadata" places={newer.places} />
        ) : (
          <Teach command={metadataCommand(run.id)}>
            No metadata yet. Workers set it as they go on:
          </Teach>
        )}
      </div>
    </section>
  );
}
