// The state of a feed in words.

const WORDS = {
  live: "Live",
  connecting: "Connecting",
  retrying: "Retrying",
  offline: "Offline",
  expired: "Token expired",
  stopped: "Not followed",
};

export function words(feed) {
  if (feed.state === "ended") return `Ended: ${feed.message}`;
  return WORDS[feed.state] ?? "Refused";
}

export function countdown(feed) {
  if (feed.state !== "retrying" && feed.state !== "offline") return "";
  const seconds = Math.max(0, Math.ceil((feed.retryAt - Date.now()) / 1000));
  return feed.state === "offline" ? `retry in ${seconds} s` : `in ${seconds} s`;
}
