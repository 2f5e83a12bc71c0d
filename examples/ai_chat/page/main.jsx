import { useChat } from "@ai-sdk/react";
import { StrictMode, useEffect } from "react";
import { createRoot } from "react-dom/client";
import { readChat, transport } from "./transport.js";

function Chat({ id, messages: before }) {
  const chat = useChat({ id, messages: before, transport, resume: before.length > 0 });
  const { messages, status, error, sendMessage } = chat;
  const isBusy = status === "submitted" || status === "streaming";
  useEffect(() => {
    window.scrollTo({ top: document.documentElement.scrollHeight });
  }, [messages]);

  return (
    <>
      <header>
        <h1>Chat</h1>
        <a href="/">New chat</a>
      </header>
      <main role="log" aria-label="Conversation" aria-busy={isBusy}>
        {messages.length === 0 && <p className="hint">Ask something.</p>}
        {messages.map((message) => (
          <p key={message.id} className={message.role}>
            {message.parts.map((part) => (part.type === "text" ? part.text : null))}
          </p>
        ))}
        {status === "submitted" && <p className="hint">Thinking</p>}
        {error && (
          <p className="problem" role="alert">
            {error.message}
          </p>
        )}
      </main>
      <Composer
        isBusy={isBusy}
        onSend={(text) => sendMessage({ text })}
        onStop={() => transport.stopRun(id)}
      />
    </>
  );
}

function Composer({ isBusy, onSend, onStop }) {
  const send = (event) => {
    event.preventDefault();
    const text = event.target.message.value.trim();
    if (!text || isBusy) return;
    event.target.reset();
    onSend(text);
  };
  return (
    <form onSubmit={send}>
      <input name="message" aria-label="Message" placeholder="Write a message" autoFocus />
      {isBusy ? (
        <button key="stop" type="button" onClick={onStop}>
          Stop
        </button>
      ) : (
        <button key="send">Send</button>
      )}
    </form>
  );
}

// The address names the chat, so that a reload and other windows find it.
const url = new URL(window.location.href);
const id = url.searchParams.get("chat") ?? crypto.randomUUID();
url.searchParams.set("chat", id);
window.history.replaceState(null, "", url);

const chat = await readChat(id);
createRoot(document.getElementById("root")).render(
  <StrictMode>
    <Chat id={id} messages={chat?.messages ?? []} />
  </StrictMode>,
);
