// What runs in a SharedWorker: the connection of all tabs of a group, which dies with none of them.
//
// It speaks to tabs as a leading tab does, and waits in line for the lead as they do. Its name says
// for whom it is there. It ends when the last tab is gone, or has closed its client.

import { LINGER_MS } from "./constants.js";
import { GatewayLink } from "./gateway-link.js";
import type { TransportKind } from "./link.js";
import * as sse from "./sse-transport.js"; // not later: bundlers make one file of a worker
import { Group } from "./tab-group.js";
import { Leader } from "./tab-leader.js";
import { TokenSource } from "./token-source.js";

/** The name of a worker, as JSON. */
export interface Job {
  readonly group: string;
  readonly baseURL: string;
  readonly transports: readonly [TransportKind, ...TransportKind[]];
}

/** What is used of a `SharedWorkerGlobalScope`. */
export interface WorkerScope {
  readonly name: string;
  onconnect: ((event: { readonly ports: readonly MessagePort[] }) => void) | null;
  close(): void;
}

export function work(scope: WorkerScope): void {
  const { group: name, ...address } = JSON.parse(scope.name) as Job;
  let leader: Leader | undefined;
  let last: string | undefined; // asked for again only when it is spent
  const group = new Group(name, (message) => {
    leader?.hear(message);
  });
  const tokens = new TokenSource(async () => {
    if (!leader) throw new Error("nobody leads yet");
    return (last = await leader.token(last));
  });
  group.whenLeading(() => {
    const link = new GatewayLink({
      ...address,
      tokens,
      fetch: (input, init) => globalThis.fetch(input, init),
      WebSocket: (globalThis as Partial<typeof globalThis>).WebSocket,
      loadSse: () => Promise.resolve(sse),
    });
    leader = new Leader(group, link, "worker");
  });

  const tabs = new Set<string>();
  let closing: ReturnType<typeof setTimeout> | undefined;
  scope.onconnect = ({ ports: [port] }) => {
    if (!port) return;
    clearTimeout(closing);
    port.onmessage = ({ data }) => {
      const tab = data as string;
      tabs.add(tab);
      group.whenGone(tab, () => {
        tabs.delete(tab);
        if (tabs.size > 0) return;
        closing = setTimeout(() => {
          group.close();
          leader?.close();
          scope.close();
        }, LINGER_MS);
      });
    };
    // Asked behind our request for the lead: by the answer that is in line, before the tab's own.
    void navigator.locks.query().then(() => {
      port.postMessage("ready");
    });
  };
}

if ("onconnect" in globalThis) work(globalThis as unknown as WorkerScope);
