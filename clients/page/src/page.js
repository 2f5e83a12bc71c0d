// The live page: the fragment says what to show, feeds bring it, views draw it.
//
// Fragment: #token=… (taken away at once), run, tags, task, batch, since, status.

import { DetailView } from "./detail-view.js";
import { byId, oncePerFrame, setText } from "./dom.js";
import { countdown, words } from "./feed-words.js";
import { Feed } from "./feed.js";
import { ListView } from "./list-view.js";
import { RunStreams } from "./run-streams.js";
import { RunTable } from "./run-table.js";
import { StatusFilter } from "./status-filter.js";
import { StreamsView } from "./streams-view.js";
import { TimelineView } from "./timeline-view.js";
import { claimsOf, showTheSame, startingPoint, storedToken, storeToken } from "./token.js";
import { WireView } from "./wire-view.js";

const MAX_RUNS = 500;
const SPANS_MS = { "1h": 3_600_000, "1d": 86_400_000, "7d": 604_800_000 };
const PARAMETERS = ["tags", "task", "batch", "since", "status", "run"];
const LIST = "Runs";
const ONE = "This run";

let token = storedToken();
let shown = {}; // what the fragment asks for, by the names in PARAMETERS
let listFeed = null;
let runFeed = null;
let run = null; // the selected one, once it has come
let leftOut = 0; // streams of the run beside those that are shown
let left = null; // why the selected run is not in its feed any more

const table = new RunTable(MAX_RUNS);
const list = new ListView((id) => fragment({ ...shown, run: id }));
const detail = new DetailView();
const timeline = new TimelineView();
const statuses = new StatusFilter(toggleStatus);
const streams = new RunStreams(followStream);
const streamsView = new StreamsView({
  onToggle: (key, open) => {
    streams.setOpen(key, open);
    redraw();
  },
  redraw: () => redraw(),
});
const wire = new WireView();
const redraw = oncePerFrame(draw);

// What to show

function fragment(wanted) {
  const parameters = new URLSearchParams();
  for (const name of PARAMETERS) if (wanted[name]) parameters.set(name, wanted[name]);
  return `#${parameters}`;
}

function readFragment() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const given = parameters.get("token");
  const wanted = Object.fromEntries(PARAMETERS.map((name) => [name, parameters.get(name) ?? ""]));
  if (given !== null) {
    history.replaceState(null, "", fragment(wanted));
    useToken(given.trim(), wanted);
  } else show(wanted);
}

function show(wanted, anew = false) {
  const start = startingPoint(token);
  const filtered = wanted.tags || wanted.task || wanted.batch;
  if (!start.everything && !filtered && !wanted.run) {
    wanted = { ...wanted, ...start };
  }
  const before = shown;
  shown = wanted;
  const sameList = ["tags", "task", "batch", "since"].every((name) => before[name] === shown[name]);
  if (anew || !sameList || !listFeed) followList(start.everything);
  else if ((before.status ?? "") !== shown.status) list.clear(); // rows carry it in their links
  if (anew || before.run !== shown.run || !runFeed) followRun();
  fillFilter();
  draw();
  if (shown.run !== before.run) moveFocus(before.run);
}

function useToken(given, wanted) {
  const goOn = listFeedIsFor(given) && wanted === shown;
  token = given;
  storeToken(given);
  openTokenForm(false);
  if (!goOn) return show(wanted, true);
  for (const feed of [listFeed, runFeed]) feed?.useToken(token);
  streams.useToken(token);
}

// A fresh token for the same view continues where the old one ended.
function listFeedIsFor(given) {
  return feeds().length > 0 && showTheSame(token, given);
}

// Feeds

function feeds() {
  return [listFeed, runFeed, ...streams.feeds].filter(Boolean);
}

function followList(everything) {
  listFeed?.stop();
  listFeed = null;
  table.clear();
  list.clear();
  if (!token || !(everything || shown.tags || shown.task || shown.batch)) return;
  const path = shown.batch
    ? `realtime/v1/batches/${encodeURIComponent(shown.batch)}`
    : "realtime/v1/runs";
  const query = { skipColumns: "payload,output,error" };
  if (shown.tags && !shown.batch) query.tags = shown.tags;
  if (shown.task && !shown.batch) query.task = shown.task;
  const span = SPANS_MS[shown.since || "1d"];
  if (span) query.createdAt = new Date(Date.now() - span).toISOString();
  listFeed = follow(LIST, path, query, {
    onForget: () => table.clear(),
    onEvent: (type, data) => {
      if (type === "run") table.put(data);
      if (type === "gone") table.delete(data.id);
    },
  });
}

function followRun() {
  runFeed?.stop();
  runFeed = run = left = null;
  streams.clear();
  streamsView.clear();
  if (!token || !shown.run) return;
  // `stay`: metadata and tags may still change when a run is finished.
  runFeed = follow(ONE, `realtime/v1/runs/${encodeURIComponent(shown.run)}`, { stay: "true" }, {
    onForget: () => {
      run = left = null;
    },
    onEvent: (type, data) => {
      if (type === "gone") left = data.reason;
      if (type !== "run" || (run && run.revision >= data.revision && left === null)) return;
      run = data;
      left = null;
      leftOut = streams.show(run.streams ?? []);
    },
  });
}

function followStream(key, handlers) {
  const path = `realtime/v1/streams/${encodeURIComponent(shown.run)}/${encodeURIComponent(key)}`;
  return feedOf(`stream ${key}`, path, {}, handlers);
}

function follow(...words) {
  const feed = feedOf(...words);
  feed.start();
  return feed;
}

function feedOf(name, path, query, handlers) {
  const url = new URL(path, document.baseURI);
  url.hash = "";
  url.search = new URLSearchParams(query);
  return new Feed(url, token, {
    ...handlers,
    onRaw: (event) => wire.note(name, event),
    onState: () => redraw(),
  });
}

// Drawing

const SEVERITY = ["ended", "live", "connecting", "retrying", "offline", "refused", "expired"];

function draw() {
  const worst = [listFeed, runFeed]
    .filter(Boolean)
    .sort((a, b) => SEVERITY.indexOf(b.state) - SEVERITY.indexOf(a.state))[0];
  byId("connection").dataset.state = worst?.state ?? "idle";
  setText(byId("state"), worst ? words(worst) : "No token");
  setText(byId("countdown"), worst ? countdown(worst) : "");
  if (!token || worst?.state === "expired") openTokenForm(true);
  drawTokenForm(worst);
  document.body.classList.toggle("no-token", !token);
  document.body.classList.toggle("has-run", Boolean(shown.run));

  const runs = table.newestFirst();
  const chosen = chosenStatuses();
  statuses.draw(runs, chosen);
  list.draw(chosen.size > 0 ? runs.filter(({ status }) => chosen.has(status)) : runs, shown.run);
  setText(byId("count"), table.size > 0 ? `${table.isFull ? "newest " : ""}${table.size}` : "");
  setText(byId("runs-title"), shown.batch ? `Runs of ${shown.batch}` : "Runs");
  setText(byId("list-note"), listNote());
  byId("back").href = fragment({ ...shown, run: "" });
  detail.draw(shown.run || null, run, runNotice());
  if (run) timeline.draw(run, Date.now());
  streamsView.draw(streams.all, leftOut);
  const named = [
    [LIST, listFeed],
    [ONE, runFeed],
    ...streams.all.map(({ key, feed }) => [`stream ${key}`, feed]),
  ].filter(([, feed]) => feed);
  wire.draw(named.map(([name, feed]) => [name, feed, `${words(feed)} ${countdown(feed)}`.trim()]));
  const title = run && shown.run ? `${byId("detail-status").textContent} · ${run.taskIdentifier} · ` : "";
  document.title = `${title}runcast`;
}

function listNote() {
  if (!token) return "";
  if (!listFeed) return "This token does not open every run. Filter by a tag or a task that it names.";
  if (listFeed.state === "refused") return listFeed.message;
  if (list.size === 0 && table.size > 0) return "None of these runs has such a status now.";
  if (table.size > 0) return "";
  return listFeed.state === "live" ? "No runs yet. They appear here by themselves." : "";
}

function runNotice() {
  if (!runFeed) return null;
  if (runFeed.state === "refused") return runFeed.message;
  if (left === "deleted" || runFeed.message === "deleted") return "This run was deleted. Below is its last state.";
  if (left) return "This run is not visible with this token any more. Below is what was seen last.";
  return null;
}

function drawTokenForm(worst) {
  let title = "Paste a token to begin";
  if (token) title = "Use another token";
  if (worst?.state === "expired") title = "The token has expired. Paste a fresh one to go on";
  setText(byId("token-title"), title);
}

function openTokenForm(open) {
  const form = byId("token-form");
  if (form.hidden === !open) return;
  form.hidden = !open;
  byId("token-button").setAttribute("aria-expanded", String(open));
}

function fillFilter() {
  const { tags, task, since } = byId("filter").elements;
  tags.value = shown.tags ?? "";
  task.value = shown.task ?? "";
  since.value = shown.since || "1d";
}

function chosenStatuses() {
  return new Set((shown.status ?? "").split(",").filter(Boolean));
}

function toggleStatus(name) {
  const chosen = chosenStatuses();
  if (!chosen.delete(name)) chosen.add(name);
  location.hash = fragment({ ...shown, status: [...chosen].join(",") });
}

// On a narrow page list and run take each other's place; on a wide one the focus stays.
function moveFocus(lastRun) {
  if (!matchMedia("(max-width: 60rem)").matches) return;
  scrollTo(0, 0);
  if (shown.run) byId("detail").focus({ preventScroll: true });
  else list.focus(lastRun);
}

// People and the network

byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("token-field");
  const given = field.value.trim();
  field.value = "";
  if (given) useToken(given, claimsOf(given).sub === claimsOf(token).sub ? shown : {});
});

byId("token-button").addEventListener("click", () => {
  openTokenForm(byId("token-form").hidden);
  if (!byId("token-form").hidden) byId("token-field").focus();
});

byId("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  const { tags, task, since } = event.target.elements;
  const names = tags.value.split(",").map((tag) => tag.trim());
  location.hash = fragment({
    tags: names.filter(Boolean).join(","),
    task: task.value.trim(),
    since: since.value === "1d" ? "" : since.value,
    status: shown.status,
    run: shown.run,
  });
});
byId("filter").elements.since.addEventListener("change", () => byId("filter").requestSubmit());

byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is taken
  byId("content").focus();
});

addEventListener("hashchange", readFragment);
addEventListener("online", () => feeds().forEach((feed) => feed.tryNow()));
addEventListener("offline", () => feeds().forEach((feed) => feed.mistrust()));
addEventListener("pageshow", (event) => {
  if (event.persisted) feeds().forEach((feed) => feed.mistrust());
});
document.addEventListener("visibilitychange", () => {
  streams.setVisible(!document.hidden);
  if (!document.hidden) feeds().forEach((feed) => feed.tryNow());
});
setInterval(() => {
  list.drawAges();
  const waiting = feeds().some((feed) => feed.state === "retrying" || feed.state === "offline");
  if (waiting || (run && !run.finishedAt)) redraw(); // a countdown, or the span that lasts
}, 1000);

readFragment();
