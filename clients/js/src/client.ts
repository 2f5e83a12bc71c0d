// What an application makes once: the way to one gateway.

import type { Frame } from "./frame.js";
import { Registry, type Source } from "./feed.js";
import { GatewayLink, type Gateway } from "./gateway-link.js";
import type { ListQuery, RelatedRuns, RunHandle, RunPage, TriggerOptions } from "./http.js";
import { loadHttp, loadSse } from "./later.js";
import type { ConnectionState, Link, TransportKind } from "./link.js";
import { manyRuns, oneRun, type ManyRuns, type Subject } from "./request.js";
import { runFeed, runsFeed, type RunFeed, type RunsFeed } from "./run-feed.js";
import { RunSet } from "./run-set.js";
import { hasTabs, SharedLink } from "./shared-link.js";
import type { Store } from "./store.js";
import { DEFAULT_STREAM, streamFeed, type StreamFeed, type StreamOptions } from "./stream-feed.js";
import { StreamLog } from "./stream-log.js";
import { Subscription, type Data } from "./subscription.js";
import { TokenSource, type Token } from "./token-source.js";
import type { Column, PartOf, PayloadOf, StreamKey, TaskId } from "./types.js";

export interface ClientOptions {
  /** Address of the gateway, such as `https://runs.example.com`; that of the page if left out. */
  readonly baseURL?: string;
  /**
   * A token, or a function that gives one. The function is asked when a token is needed, before the
   * one it gave expires, and when that is refused.
   */
  readonly token: Token;
  /** Ways to connect in order of preference; `["websocket", "sse"]` if left out. */
  readonly transports?: readonly [TransportKind, ...TransportKind[]];
  /**
   * Share the connection with tabs of this origin whose tokens have the same rights; true if left
   * out. A SharedWorker has it where one can be started, otherwise one of the tabs; "locks": always
   * one of the tabs. Only tokens that a function gives are shared.
   */
  readonly shareTabs?: boolean | "locks";
  /** Called with every frame of every subscription, and what it is of: for tools that show them. */
  readonly onFrame?: (frame: Frame, of: Subject) => void;
  /** In place of the global ones; a worker has none but those. */
  readonly fetch?: typeof fetch;
  readonly WebSocket?: typeof WebSocket;
}

export interface FollowOptions {
  /** Fields of runs that are not needed, such as `["payload", "output"]`. */
  readonly skipColumns?: readonly Column[];
  /** Tell of news at most once per so many milliseconds. */
  readonly throttleMs?: number;
}

export interface RunsOptions extends FollowOptions {
  /** How many runs to keep, the newest ones; all if left out. */
  readonly maxRuns?: number;
}

export interface Client {
  /** Follow one run. It ends when the run is finished, unless it is told to `stay`. */
  run<Id extends TaskId = TaskId>(
    id: string,
    options?: FollowOptions & { readonly stay?: boolean },
  ): RunFeed<Id>;
  /** Follow the runs of a batch, or those that have all of some tags, are of a task, or all. */
  runs<Id extends TaskId = TaskId>(which: ManyRuns<Id>, options?: RunsOptions): RunsFeed<Id>;
  /** Follow a stream of a run. */
  stream<Part = unknown>(runId: string, key: string, options?: StreamOptions): StreamFeed<Part>;
  stream<Id extends TaskId, Key extends StreamKey<Id>>(
    runId: string,
    key: Key,
    options?: StreamOptions,
  ): StreamFeed<PartOf<Id, Key>>;
  /** Create a run of a task. */
  trigger<Id extends TaskId>(
    task: Id,
    payload: PayloadOf<Id>,
    options?: TriggerOptions,
  ): Promise<RunHandle<Id>>;
  /** Read the runs around one: its root, its parent, and up to 100 children, newest last. */
  related(id: string, signal?: AbortSignal): Promise<RelatedRuns>;
  /** Read one page of runs, newest first. */
  list<Id extends TaskId = TaskId>(
    query?: ListQuery<Id>,
    signal?: AbortSignal,
  ): Promise<RunPage<Id>>;
  /** How the connection is. */
  readonly connection: Store<ConnectionState>;
  /** Measure how long the gateway takes to answer, unless tabs share the connection; `connection`
   * tells it as `latencyMs`. */
  ping(): void;
  /** The same gateway with another token, over a connection of its own. */
  withToken(token: Token): Client;
  /** End all subscriptions, iterations and the connection. Whoever subscribes later makes them anew. */
  close(): void;
}

export function createClient(options: ClientOptions): Client {
  const gateway = gatewayOf(options);
  const { shareTabs = true } = options;
  const mayWork = shareTabs === true && !options.fetch && !options.WebSocket;
  const link: Link =
    shareTabs && hasTabs() ? new SharedLink(gateway, mayWork) : new GatewayLink(gateway);
  const watched: Pick<Link, "open"> = {
    open: (request, receive) =>
      link.open(request, (frame) => {
        options.onFrame?.(frame, request);
        receive(frame);
      }),
  };
  const registry = new Registry();
  let pages = 0;

  function source<Kept extends Data>(
    subject: Subject,
    extra: object,
    data: () => Kept,
  ): Source<Kept> {
    const key = JSON.stringify([subject, extra]);
    return {
      peek: () => registry.peek<Kept>(key),
      obtain: () =>
        registry.obtain(key, (onOver) => new Subscription(watched, subject, data(), onOver)),
    };
  }

  const client = {
    run(id: string, { skipColumns, throttleMs, stay }: FollowOptions & { stay?: boolean } = {}) {
      return runFeed(
        source(oneRun(id, skipColumns, stay), {}, () => new RunSet()),
        throttleMs,
      );
    },
    runs(which: ManyRuns, { skipColumns, throttleMs, maxRuns }: RunsOptions = {}) {
      return runsFeed(
        source(manyRuns(which, skipColumns, Date.now()), { maxRuns }, () => new RunSet(maxRuns)),
        throttleMs,
      );
    },
    stream(runId: string, key: string, given: StreamOptions = {}) {
      const chosen = { ...DEFAULT_STREAM, ...given };
      const { from, maxParts, maxText } = chosen;
      const subject = { stream: { run: runId, key } };
      return streamFeed(
        {
          ...source(subject, { from, maxParts, maxText }, () => new StreamLog(from, chosen)),
          get signal() {
            return registry.signal;
          },
          page: (log) =>
            registry.obtain(
              `page ${String(++pages)}`,
              (onOver) => new Subscription(watched, subject, log, onOver),
            ),
        },
        chosen,
      );
    },
    trigger: async (task: string, payload: unknown, triggerOptions?: TriggerOptions) =>
      (await loadHttp()).trigger(gateway, task, payload, triggerOptions),
    list: async (query?: ListQuery, signal?: AbortSignal) =>
      (await loadHttp()).list(gateway, query, signal),
    related: async (id: string, signal?: AbortSignal) =>
      (await loadHttp()).related(gateway, id, signal),
    connection: link.connection,
    ping: () => link.ping?.(),
    withToken: (token: Token) => createClient({ ...options, token }),
    close() {
      registry.leaveAll();
      link.close();
      gateway.tokens.giveUp();
    },
  };
  return client as Client;
}

const ambient = globalThis as Partial<typeof globalThis>;

function gatewayOf({
  baseURL = ambient.location?.origin,
  token,
  transports = ["websocket", "sse"],
  fetch,
  WebSocket = ambient.WebSocket,
}: ClientOptions): Gateway {
  if (!baseURL || !/^https?:\/\//.test(baseURL)) {
    throw new TypeError('createClient needs a `baseURL`, such as "https://…".');
  }
  const { Response } = ambient;
  // React Native's own `fetch` gives answers whole.
  const canStream = fetch ?? (Response && "body" in Response.prototype);
  const [first = "sse", ...others] = transports.filter((kind) =>
    kind === "sse" ? canStream : WebSocket,
  );
  return {
    baseURL: baseURL.replace(/\/+$/, ""),
    tokens: new TokenSource(token),
    // Called as a method it would not work in browsers.
    fetch: fetch ?? ((input, init) => globalThis.fetch(input, init)),
    WebSocket,
    transports: [first, ...others],
    loadSse,
  };
}
