// Lets `useChat` of the Vercel AI SDK follow runs: an answer is a stream of UI message chunks.

import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import {
  createClient,
  RuncastError,
  type Client,
  type ClientOptions,
  type Token,
} from "../index.js";

/** The run that writes an answer. */
export interface ChatRun {
  readonly runId: string;
  /** May read this run; see `ClientOptions`. */
  readonly token: Token;
  /** Of the stream that holds the chunks; `ui` if not said. */
  readonly key?: string;
}

/** What `useChat` tells of the message that is sent. */
export type ChatRequest<Message extends UIMessage = UIMessage> = Parameters<
  ChatTransport<Message>["sendMessages"]
>[0];

export interface ChatTransportOptions<Message extends UIMessage = UIMessage> extends Omit<
  ClientOptions,
  "token"
> {
  /** Have your backend trigger a run that answers. */
  readonly start: (request: ChatRequest<Message>) => Promise<ChatRun>;
  /** The run that was answering in a chat before the page was loaded, if any. */
  readonly resume?: (chatId: string) => Promise<ChatRun | null | undefined>;
  /** Have your backend cancel a run. */
  readonly stop?: (run: ChatRun) => Promise<unknown>;
}

export interface RunChatTransport<
  Message extends UIMessage = UIMessage,
> extends ChatTransport<Message> {
  /**
   * Cancel the run that answers in this chat; what it wrote stays. The `stop` of `useChat` only
   * leaves the stream, as it does whenever its component is unmounted.
   */
  readonly stopRun: (chatId: string) => Promise<void>;
}

/** Make the `transport` of `useChat`; once, outside of components. */
export function createChatTransport<Message extends UIMessage = UIMessage>({
  start,
  resume,
  stop,
  ...options
}: ChatTransportOptions<Message>): RunChatTransport<Message> {
  const answering = new Map<string, Promise<ChatRun>>();

  async function follow(
    chatId: string,
    starting: Promise<ChatRun>,
  ): Promise<ReadableStream<UIMessageChunk>> {
    const forget = () => {
      if (answering.get(chatId) === starting) answering.delete(chatId);
    };
    answering.set(chatId, starting);
    try {
      const run = await starting;
      return chunksOf(run, createClient({ ...options, token: run.token }), forget);
    } catch (error) {
      forget();
      throw error;
    }
  }

  return {
    // Whoever comes back reads the stream from its start.
    resumeStreamIsReplay: true,
    sendMessages: (request) => follow(request.chatId, start(request)),
    reconnectToStream: async ({ chatId }) => {
      const run = await resume?.(chatId);
      return run ? follow(chatId, Promise.resolve(run)) : null;
    },
    stopRun: async (chatId) => {
      const run = await answering.get(chatId);
      if (run) await stop?.(run);
    },
  };
}

function chunksOf(
  { runId, key = "ui" }: ChatRun,
  client: Client,
  onLeft: () => void,
): ReadableStream<UIMessageChunk> {
  const parts = client.stream<UIMessageChunk>(runId, key)[Symbol.asyncIterator]();
  let isLeft = false;
  const leave = () => {
    isLeft = true;
    client.close();
    onLeft();
  };
  return new ReadableStream<UIMessageChunk>({
    async pull(controller) {
      try {
        const { done, value } = (await parts.next()) as IteratorResult<UIMessageChunk, undefined>;
        if (isLeft) return;
        if (!done) controller.enqueue(chunkOf(value, key));
        if (!done && value.type !== "finish") return;
        if (done) await throwIfFailed(client, runId);
        controller.close();
      } catch (error) {
        controller.error(error);
      }
      leave();
    },
    cancel: leave,
  });
}

function chunkOf(part: UIMessageChunk, key: string): UIMessageChunk {
  if (typeof (part as Partial<UIMessageChunk> | null)?.type === "string") return part;
  const message = `A part of the stream "${key}" is no UI message chunk: it has no type.`;
  throw new RuncastError("invalid_answer", message);
}

/** The stream ended before the answer did: perhaps because the run did. */
async function throwIfFailed(client: Client, runId: string): Promise<void> {
  for await (const run of client.run(runId)) {
    if (!FAILED.includes(run.status)) return;
    throw new Error(run.error?.message ?? `The run is ${run.status.toLowerCase()}.`);
  }
}

const FAILED = ["FAILED", "CRASHED", "SYSTEM_FAILURE", "EXPIRED", "TIMED_OUT"];
