// The token of this tab, and what it says of itself.

const KEY = "runcast.token";

export function storedToken() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function storeToken(token) {
  sessionStorage.setItem(KEY, token);
}

// Claims of a public access token, unverified; {} for a secret key, which may see everything.
export function claimsOf(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (character) => character.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

// Whether a feed may go on from its cursor under the other token: both show the same runs.
export function showTheSame(one, other) {
  if (!claimsOf(one).sub) return one === other;
  const view = ({ sub, scopes, realtime }) => JSON.stringify([sub, scopes, realtime]);
  return view(claimsOf(one)) === view(claimsOf(other));
}

// What to show first with this token: {everything, run?, and one of batch, tags, task}.
export function startingPoint(token) {
  const { scopes } = claimsOf(token);
  if (!Array.isArray(scopes)) return { everything: true };
  if (scopes.some((scope) => WHOLE.has(scope))) return { everything: true };
  const texts = scopes.filter((scope) => typeof scope === "string");
  const first = (start) => texts.find((scope) => scope.startsWith(start))?.slice(start.length);
  const point = { everything: false, run: first("read:runs:") ?? "" };
  for (const [name, start] of Object.entries(LISTS)) {
    const id = first(start);
    if (id) return { ...point, [name]: id };
  }
  return point;
}

const LISTS = { batch: "read:batch:", tags: "read:tags:", task: "read:tasks:" };
const WHOLE = new Set(["admin", "read:all", "read:runs", "*:all", "*:runs"]);
