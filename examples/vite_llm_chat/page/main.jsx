import { useEffect, useRef } from "react";
import { createRoot } from "react-dom/client";
import { useRealtimeRunWithStreams } from "@trigger.dev/react-hooks";
import { useChat } from "./chat.js";

function Chat() {
  const { exchanges, problem, isBusy, ask, finish, clear } = useChat();
  useEffect(() => scrollToEnd(), [exchanges.length]);

  return (
    <>
      <header>
        <h1>Chat</h1>
        {exchanges.length > 0 && (
          <button className="quiet" onClick={clear}>
            New chat
          </button>
        )}
      </header>
      <main>
        <div role="log" aria-label="Conversation" aria-busy={isBusy}>
          {exchanges.length === 0 && (
            <p className="welcome">
              Ask something. The answer streams through runcast, and survives a reload.
            </p>
          )}
          {exchanges.map((exchange) => (
            <article key={exchange.run}>
              <p className="question">{exchange.question}</p>
              {exchange.ending ? (
                <Ended {...exchange.ending} />
              ) : (
                <LiveAnswer exchange={exchange} onEnd={finish} />
              )}
            </article>
          ))}
        </div>
        {problem && <Problem text={problem} />}
      </main>
      <Composer isBusy={isBusy} onSend={ask} />
    </>
  );
}

/** An answer as it is written: its run says how it stands, its stream what was said. */
function LiveAnswer({ exchange, onEnd }) {
  const { run, token, baseURL } = exchange;
  const live = useRealtimeRunWithStreams(run, {
    accessToken: token,
    baseURL,
    onComplete: (over) => onEnd(run, endingOf(over, text)),
  });
  const text = (live.streams.llm ?? []).join("");
  useEffect(() => {
    if (isNearEnd()) scrollToEnd();
  }, [text]);
  useEffect(() => {
    if (live.error) onEnd(run, { text, problem: `It cannot be followed: ${live.error.message}` });
  }, [live.error]);

  return text ? (
    <p className="answer writing">{text}</p>
  ) : (
    <p className="answer thinking">Thinking</p>
  );
}

/** What is kept of a run that is over. Its output is whole, whatever the stream still owes us. */
function endingOf(run, text) {
  if (run.status === "COMPLETED") return { text: run.output.text };
  return { text, problem: run.error?.message ?? `The run is ${run.status.toLowerCase()}.` };
}

function Ended({ text, problem }) {
  return (
    <>
      {text && <p className="answer">{text}</p>}
      {problem && <Problem text={problem} />}
    </>
  );
}

function Problem({ text }) {
  return (
    <p className="problem" role="alert">
      {text}
    </p>
  );
}

function Composer({ isBusy, onSend }) {
  const field = useRef(null);
  const send = async (event) => {
    event.preventDefault();
    const question = field.current.value.trim();
    if (!question || isBusy) return;
    if (await onSend(question)) field.current.value = "";
    field.current.focus();
  };
  const sendOnEnter = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) send(event);
  };

  return (
    <form onSubmit={send}>
      <textarea
        ref={field}
        rows="1"
        aria-label="Message"
        placeholder="Write a message"
        maxLength="4000"
        autoFocus
        onKeyDown={sendOnEnter}
      />
      <button disabled={isBusy}>Send</button>
    </form>
  );
}

function scrollToEnd() {
  window.scrollTo({ top: document.documentElement.scrollHeight });
}

/** Whether the reader is where the text grows, and wants to stay there. */
function isNearEnd() {
  return window.innerHeight + window.scrollY > document.documentElement.scrollHeight - 100;
}

createRoot(document.getElementById("root")).render(<Chat />);
