// Clients that the elements of a page share: one for each gateway and source of tokens.

import { createClient, type Client } from "../client.js";
import { LINGER_MS } from "../constants.js";

interface Shared {
  readonly client: Client;
  users: number;
}

const known = new Map<string, Shared>();

/** Use a client until the returned function is called; the last one closes it, a moment later. */
export function borrow(baseURL: string | undefined, tokenURL: string): [Client, () => void] {
  const key = JSON.stringify([baseURL, tokenURL]);
  const shared = known.get(key) ?? {
    client: createClient({
      ...(baseURL !== undefined && { baseURL }),
      token: () => fetchToken(tokenURL),
    }),
    users: 0,
  };
  known.set(key, shared);
  shared.users += 1;
  const giveBack = () => {
    shared.users -= 1;
    setTimeout(() => {
      if (shared.users > 0 || known.get(key) !== shared) return;
      known.delete(key);
      shared.client.close();
    }, LINGER_MS);
  };
  return [shared.client, giveBack];
}

/** The token is the answer's text, or `token` of its JSON. */
async function fetchToken(url: string): Promise<string> {
  const answer = await fetch(url, { cache: "no-store" });
  if (!answer.ok) throw new Error(`token-url answered ${String(answer.status)}`);
  const text = (await answer.text()).trim();
  if (!/^[{"]/.test(text)) return text;
  const json = JSON.parse(text) as string | { token?: unknown };
  const token = typeof json === "string" ? json : json.token;
  if (typeof token !== "string") throw new Error("token-url gave no `token`");
  return token;
}
