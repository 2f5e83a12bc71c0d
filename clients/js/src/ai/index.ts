// What `@runcast/client/ai` gives people.

export {
  createChatTransport,
  type ChatRequest,
  type ChatRun,
  type ChatTransportOptions,
  type RunChatTransport,
} from "./chat-transport.js";
