// What an application sees of runs, and how it declares its tasks.

/* eslint-disable @typescript-eslint/no-redundant-type-constituents --
   nothing is declared here, so that these types are simpler than in applications. */

/** What a task takes and gives; all of it is unknown where it is not declared. */
export interface TaskTypes {
  payload?: unknown;
  output?: unknown;
  metadata?: unknown;
  /** Type of the parts of each stream, by its key. */
  streams?: object;
}

/**
 * Declare the tasks once, and everything is typed by them:
 *
 *     declare module "@runcast/client" {
 *       interface Register {
 *         tasks: { summarize: { payload: { url: string }; output: string; streams: { llm: string } } };
 *       }
 *     }
 */
// eslint-disable-next-line @typescript-eslint/no-empty-object-type
export interface Register {}

export type Tasks = Register extends { tasks: infer Declared }
  ? Declared
  : Record<string, { streams: Record<string, unknown> }>;
export type TaskId = keyof Tasks & string;

type Field<Task, Name extends string> =
  Task extends Record<Name, infer Type>
    ? Type
    : Task extends Partial<Record<Name, infer Type>>
      ? Type
      : unknown;

export type PayloadOf<Id extends TaskId> = Field<Tasks[Id], "payload">;
export type OutputOf<Id extends TaskId> = Field<Tasks[Id], "output">;
export type MetadataOf<Id extends TaskId> = Field<Tasks[Id], "metadata">;
export type StreamsOf<Id extends TaskId> =
  Field<Tasks[Id], "streams"> extends infer Streams
    ? Streams extends object
      ? Streams
      : Record<string, unknown>
    : never;
export type StreamKey<Id extends TaskId> = keyof StreamsOf<Id> & string;
export type PartOf<Id extends TaskId, Key extends string> =
  StreamsOf<Id> extends infer Streams
    ? Key extends keyof Streams
      ? Streams[Key]
      : unknown
    : never;

export type RunStatus =
  | "DELAYED"
  | "QUEUED"
  | "PENDING_VERSION"
  | "DEQUEUED"
  | "EXECUTING"
  | "WAITING"
  | "COMPLETED"
  | "FAILED"
  | "CANCELED"
  | "CRASHED"
  | "SYSTEM_FAILURE"
  | "EXPIRED"
  | "TIMED_OUT";

export interface RunError {
  readonly message: string;
  readonly name?: string;
  readonly stackTrace?: string;
  readonly causes?: readonly unknown[];
}

/** A run as it is now; docs/protocol.md "The run object". A union over the tasks that it may be of. */
export type Run<Id extends TaskId = TaskId> = Id extends TaskId ? RunOf<Id> : never;

interface RunOf<Id extends TaskId> {
  readonly id: string;
  readonly taskIdentifier: Id;
  readonly status: RunStatus;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly revision: number;
  readonly number: number;
  readonly tags: readonly string[];
  readonly isTest: boolean;
  readonly durationMs: number;
  readonly costInCents: number;
  readonly baseCostInCents: number;
  readonly attemptCount: number;
  readonly depth: number;
  readonly metadata?: MetadataOf<Id>;
  /** Null if there is none; absent if it is skipped, or kept in the object store. */
  readonly payload?: PayloadOf<Id> | null;
  readonly output?: OutputOf<Id>;
  readonly error?: RunError;
  readonly queuedAt?: string;
  readonly startedAt?: string;
  readonly finishedAt?: string;
  readonly delayedUntil?: string;
  readonly expiredAt?: string;
  readonly ttl?: string;
  readonly idempotencyKey?: string;
  readonly batchId?: string;
  readonly parentId?: string;
  readonly rootId?: string;
  readonly queue?: string;
  readonly streams?: readonly string[];
}

/** A field of a run that can be left out by `skipColumns`. */
export type Column = Exclude<
  keyof RunOf<TaskId>,
  "id" | "taskIdentifier" | "status" | "createdAt" | "updatedAt" | "revision"
>;
