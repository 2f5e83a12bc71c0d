// Brings `useChat` and the gateway together; our backend is asked to begin, to find and to stop.

import { createChatTransport } from "@runcast/client/ai";

async function ask(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw new Error(`The backend says ${response.status}.`);
  return response.json();
}

export const readChat = (chatId) => ask("GET", `/api/chats/${chatId}`);

export const transport = createChatTransport({
  baseURL: import.meta.env.VITE_RUNCAST_URL ?? "http://127.0.0.1:8080",
  start: ({ chatId, messages }) => ask("POST", `/api/chats/${chatId}`, { messages }),
  resume: async (chatId) => (await readChat(chatId))?.answering,
  stop: ({ runId }) => ask("DELETE", `/api/runs/${runId}`),
});
