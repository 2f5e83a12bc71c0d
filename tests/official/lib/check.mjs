// The registry of checks. Files in checks/ fill it; tests/official/test_official_clients.py finds
// the names by reading those files, so a check begins on a line of its own with its name in quotes.

export const found = new Map();

/** A check for both generations; `check.v3` and `check.v4` are for one of them. */
export function check(name, body) {
  register(name, body, undefined);
}
check.v3 = (name, body) => register(name, body, "v3");
check.v4 = (name, body) => register(name, body, "v4");

function register(name, body, only) {
  if (found.has(name)) throw new Error(`two checks are called ${JSON.stringify(name)}`);
  found.set(name, { body, only });
}
