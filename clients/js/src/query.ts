// The query of an address, without URLSearchParams, of which React Native has only a part.

type Value = string | number | boolean | readonly string[] | undefined;

/** What is undefined is left out; empty if nothing is left. */
export function queryOf(parameters: Readonly<Record<string, Value>>): string {
  const pairs: string[] = [];
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined)
      pairs.push(`${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`);
  }
  return pairs.length > 0 ? `?${pairs.join("&")}` : "";
}
