// @vitest-environment jsdom
// `useChat` of the AI SDK over the model of the gateway, in StrictMode.

import { useChat } from "@ai-sdk/react";
import { act, cleanup, render } from "@testing-library/react";
import type { UIMessage } from "ai";
import { StrictMode, type ReactNode } from "react";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createChatTransport, type ChatRequest, type ChatRun } from "../src/ai/index.js";
import { ModelGateway } from "./support/gateway.js";

const RUN: ChatRun = { runId: "run_1", token: "good" };
const START = [
  { type: "start", messageId: "answer" },
  { type: "text-start", id: "t" },
];
const END = [{ type: "text-end", id: "t" }, { type: "finish" }];
const words = (...deltas: string[]) =>
  deltas.map((delta) => ({ type: "text-delta", id: "t", delta }));

let gateway: ModelGateway;
let start: (request: ChatRequest) => Promise<ChatRun>;
let resume: (chatId: string) => Promise<ChatRun | null>;
const stop = vi.fn(() => Promise.resolve());
let chat: ReturnType<typeof useChat>;

beforeEach(() => {
  vi.useFakeTimers();
  gateway = new ModelGateway();
  gateway.change("run_1");
  start = vi.fn(() => Promise.resolve(RUN));
  resume = vi.fn(() => Promise.resolve(null));
  stop.mockClear();
});

afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

/** Show a chat, as one that is loaded again if it has messages. */
function show(messages: UIMessage[] = []): { unmount: () => void } {
  const transport = createChatTransport({
    baseURL: "http://gateway",
    transports: ["websocket"],
    WebSocket: gateway.WebSocket,
    start: (request) => start(request),
    resume: (chatId) => resume(chatId),
    stop,
  });
  function Chat(): ReactNode {
    chat = useChat({ id: "chat", messages, transport, resume: messages.length > 0 });
    return <button onClick={() => void transport.stopRun("chat")}>stop</button>;
  }
  const shown = render(
    <StrictMode>
      <Chat />
    </StrictMode>,
  );
  return shown;
}

async function pass(): Promise<void> {
  await act(async () => {
    for (let n = 0; n < 5; n++) {
      await vi.advanceTimersByTimeAsync(20);
      gateway.deliver();
    }
    await vi.advanceTimersByTimeAsync(1);
  });
}

async function say(text: string): Promise<void> {
  act(() => void chat.sendMessage({ text }));
  await pass();
}

const texts = () =>
  chat.messages.map(({ parts }) =>
    parts.map((part) => (part.type === "text" ? part.text : "")).join(""),
  );
const asked: UIMessage = { id: "question", role: "user", parts: [{ type: "text", text: "Hi" }] };

test("an answer is shown while it is written, and is over with its last chunk", async () => {
  show();
  await say("Hi");
  expect(vi.mocked(start).mock.calls[0]?.[0]).toMatchObject({
    chatId: "chat",
    trigger: "submit-message",
  });
  expect(chat.status).toBe("submitted");
  gateway.append("ui", ...START, ...words("Once"));
  await pass();
  expect([chat.status, ...texts()]).toEqual(["streaming", "Hi", "Once"]);
  gateway.append("ui", ...words(" upon"), ...END);
  await pass();
  expect([chat.status, ...texts()]).toEqual(["ready", "Hi", "Once upon"]);
  expect(chat.messages[1]?.id).toBe("answer");
  expect(gateway.sockets.size).toBe(0);
});

test("a broken connection neither loses nor doubles a word", async () => {
  show();
  await say("Hi");
  gateway.append("ui", ...START, ...words("Once"));
  await pass();
  gateway.cut();
  gateway.append("ui", ...words(" upon"), ...END);
  await vi.waitFor(async () => {
    await pass();
    expect(chat.status).toBe("ready");
  });
  expect(texts()).toEqual(["Hi", "Once upon"]);
});

test("after a reload the answer is there from its start, once, and goes on", async () => {
  resume = () => Promise.resolve(RUN);
  gateway.append("ui", ...START, ...words("Once"));
  const half: UIMessage = {
    id: "answer",
    role: "assistant",
    parts: [
      { type: "text", text: "On" },
      { type: "tool-look", toolCallId: "call", state: "input-streaming", input: undefined },
    ],
  };
  show([asked, half]);
  await pass();
  expect([chat.status, ...texts()]).toEqual(["streaming", "Hi", "Once"]);
  gateway.append("ui", ...words(" upon"), ...END);
  await pass();
  expect([chat.status, ...texts()]).toEqual(["ready", "Hi", "Once upon"]);
});

test("a chat without an answer under way has nothing to resume", async () => {
  show([asked]);
  await pass();
  expect(chat.status).toBe("ready");
  expect(gateway.connections).toBe(0);
});

test("stopping has the run canceled, and the answer ends with its stream", async () => {
  show();
  await say("Hi");
  gateway.append("ui", ...START, ...words("Once"));
  await pass();
  act(() => {
    document.querySelector("button")?.click();
  });
  await pass();
  expect(stop).toHaveBeenCalledExactlyOnceWith(RUN);
  gateway.change("run_1", { status: "CANCELED" });
  gateway.end("ui");
  await pass();
  expect([chat.status, chat.error, ...texts()]).toEqual(["ready", undefined, "Hi", "Once"]);
  act(() => {
    document.querySelector("button")?.click();
  });
  await pass();
  expect(stop).toHaveBeenCalledTimes(1);
});

test("leaving the page, or useChat's own stop, leaves the stream and not the run", async () => {
  const { unmount } = show();
  await say("Hi");
  expect(gateway.followers.size).toBe(1);
  await act(() => chat.stop());
  expect(chat.status).toBe("ready");
  expect(gateway.sockets.size).toBe(0);
  await say("And now?");
  expect(gateway.followers.size).toBe(1);
  unmount();
  await pass();
  expect(gateway.sockets.size).toBe(0);
  expect(gateway.connections).toBe(2);
  expect(stop).not.toHaveBeenCalled();
});

test.each([
  ["says so", { status: "FAILED", error: { message: "no more words" } } as const, "no more words"],
  ["is not started", { status: "EXPIRED" } as const, "The run is expired."],
])("an answer whose run %s is an error", async (_, fields, message) => {
  show();
  await say("Hi");
  gateway.append("ui", ...START);
  gateway.change("run_1", fields);
  gateway.end("ui");
  await pass();
  expect([chat.status, chat.error?.message]).toEqual(["error", message]);
});

test.each([
  [
    "the backend",
    () => (start = () => Promise.reject(new Error("The backend says 502."))),
    "The backend says 502.",
  ],
  ["the gateway", () => (start = () => Promise.resolve({ ...RUN, token: "bad" })), "no"],
  ["the stream", () => (gateway.append("ui", "Once"), undefined), /"ui" is no UI message chunk/],
])("what is wrong with %s is shown", async (_, prepare, message) => {
  prepare();
  show();
  await say("Hi");
  expect(chat.status).toBe("error");
  expect(chat.error?.message).toMatch(message);
  expect(gateway.sockets.size).toBe(0);
});
