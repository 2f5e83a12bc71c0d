import { useState } from "react";
import { createRoot } from "react-dom/client";
import { createClient } from "@runcast/client";
import { RuncastProvider, useRun, useRunStream } from "@runcast/client/react";

const client = createClient({
  baseURL: "http://127.0.0.1:8080",
  token: async () => (await fetch("/api/token")).text(),
});

function App() {
  const [id, setId] = useState();
  const start = async () => {
    const response = await fetch("/api/stories", { method: "POST" });
    setId((await response.json()).run);
  };
  return (
    <RuncastProvider client={client}>
      <button onClick={start}>Tell me a story</button>
      {id && <Story id={id} />}
    </RuncastProvider>
  );
}

function Story({ id }) {
  const { run, error } = useRun(id);
  const { text } = useRunStream(id, "llm");
  return (
    <>
      <p>{text}</p>
      <output>{error?.message ?? run?.status}</output>
    </>
  );
}

createRoot(document.getElementById("root")).render(<App />);
