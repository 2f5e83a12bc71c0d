// What to run where there is nothing to see yet.

import type { ReactElement, ReactNode } from "react";
import { CopyButton } from "./copy-button.js";

export function Teach({
  command,
  children,
}: {
  command: string;
  children: ReactNode;
}): ReactElement {
  return (
    <div className="teach">
      <p>{children}</p>
      <div className="command">
        <pre tabIndex={0}>{command}</pre>
        <CopyButton text={command} />
      </div>
    </div>
  );
}

const HEADER = "-H 'Authorization: Bearer '$RUNCAST_SECRET_KEY";

/** Makes a run; with tags or a task so that the list of now shows it. */
export function triggerCommand(task: string, tags: readonly string[]): string {
  const body = {
    payload: { name: "world" },
    ...(tags.length > 0 && { options: { tags } }),
  };
  return [
    `curl ${location.origin}/api/v1/tasks/${encodeURIComponent(task || "hello")}/trigger \\`,
    `  ${HEADER} -H 'Content-Type: application/json' \\`,
    `  -d ${quoted(JSON.stringify(body))}`,
  ].join("\n");
}

export function metadataCommand(run: string): string {
  return [
    `curl -X PUT ${location.origin}/api/v1/runs/${run}/metadata \\`,
    `  ${HEADER} -H 'Content-Type: application/json' \\`,
    `  -d '{"metadata": {"progress": 0.5, "step": "half way"}}'`,
  ].join("\n");
}

export function streamCommand(run: string): string {
  return [
    `printf '%s\\n' '"Hello"' '" world"' | curl --data-binary @- \\`,
    `  ${HEADER} \\`,
    `  ${location.origin}/realtime/v1/streams/${run}/self/llm`,
  ].join("\n");
}

/** As one word of a shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
