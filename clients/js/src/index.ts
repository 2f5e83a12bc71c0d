// What `@runcast/client` gives people.

export {
  createClient,
  type Client,
  type ClientOptions,
  type FollowOptions,
  type RunsOptions,
} from "./client.js";
export { RuncastError, type ClientCode, type GatewayCode, type Problem } from "./errors.js";
export type { Feed } from "./feed.js";
export type { EndReason, Frame, Reset } from "./frame.js";
export type {
  ListedRun,
  ListQuery,
  RelatedRuns,
  RunHandle,
  RunPage,
  TriggerOptions,
} from "./http.js";
export type { ConnectionState, TransportKind } from "./link.js";
export type { ManyRuns, Subject } from "./request.js";
export type { RunFeed, RunsFeed, RunSnapshot, RunsSnapshot } from "./run-feed.js";
export type { Store } from "./store.js";
export type { StreamFeed, StreamOptions, StreamSnapshot } from "./stream-feed.js";
export { textOf } from "./stream-text.js";
export type { Progress } from "./subscription.js";
export type { Phase } from "./subscription-state.js";
export type { Token } from "./token-source.js";
export type {
  Column,
  MetadataOf,
  OutputOf,
  PartOf,
  PayloadOf,
  Register,
  Run,
  RunError,
  RunStatus,
  StreamKey,
  StreamsOf,
  TaskId,
  TaskTypes,
} from "./types.js";
