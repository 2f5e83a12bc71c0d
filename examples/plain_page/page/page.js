// All of the user's runs, live: one subscription for the list, and one for the log of each run.

import { createClient } from "./runcast/index.js";

const ask = async (path, method = "GET") => (await fetch(path, { method })).json();

const client = createClient({
  baseURL: await ask("/api/gateway"),
  token: () => ask("/api/token"),
});
const main = document.querySelector("main");
const cards = new Map();

const runs = client.runs({ tags: ["user:42"], createdAt: "1d" }, { throttleMs: 100 });
runs.subscribe(() => {
  const snapshot = runs.getSnapshot();
  // Newest first; a run that is not among them any more goes.
  main.replaceChildren(...snapshot.runs.map(cardOf));
});

client.connection.subscribe(() => {
  const { status } = client.connection.getSnapshot();
  document.querySelector("#connection").textContent = status;
});

document.querySelector("button").onclick = () => ask("/api/jobs", "POST");

function cardOf(run) {
  const card = cards.get(run.id) ?? newCard(run);
  card.dataset.status = run.status;
  card.querySelector(".status").textContent = run.status.toLowerCase();
  card.querySelector("progress").value = run.metadata?.progress ?? 0;
  return card;
}

function newCard({ id, createdAt }) {
  const card = document.querySelector("template").content.firstElementChild.cloneNode(true);
  cards.set(id, card);
  card.querySelector("h2").textContent = new Date(createdAt).toLocaleTimeString();
  follow(id, card.querySelector("pre"));
  return card;
}

async function follow(id, log) {
  for await (const piece of client.stream(id, "log").text()) log.append(piece);
}
