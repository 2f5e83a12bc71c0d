import { useEffect, useState } from "react";

/**
 * The conversation: exchanges of a question and its answer, kept for as long as the tab lives.
 *
 * An exchange is `{question, run, token, baseURL}`, and has an `ending` once its run is over.
 */
export function useChat() {
  const [exchanges, setExchanges] = useState(() => JSON.parse(sessionStorage.chat ?? "[]"));
  const [sending, setSending] = useState(false);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    sessionStorage.chat = JSON.stringify(exchanges);
  }, [exchanges]);

  /** Send a question; say whether it arrived. */
  async function ask(question) {
    setSending(true);
    setProblem("");
    try {
      const made = await post("/api/messages", { messages: messagesOf(exchanges, question) });
      setExchanges((before) => [...before, { question, ...made }]);
      return true;
    } catch (error) {
      setProblem(error.message);
      return false;
    } finally {
      setSending(false);
    }
  }

  function finish(run, ending) {
    const put = (exchange) => (exchange.run === run ? { ...exchange, ending } : exchange);
    setExchanges((before) => before.map(put));
  }

  const isBusy = sending || exchanges.some(({ ending }) => !ending);
  return { exchanges, problem, isBusy, ask, finish, clear: () => setExchanges([]) };
}

/** What the model is told: all that was said, and the new question. */
function messagesOf(exchanges, question) {
  const said = exchanges.flatMap(({ question, ending }) => [
    { role: "user", content: question },
    { role: "assistant", content: ending?.text || "…" },
  ]);
  return [...said.slice(-98), { role: "user", content: question }];
}

async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The backend says ${response.status}.`);
  return answer;
}
