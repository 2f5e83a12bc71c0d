// What a public token says of itself, unverified: who may share a connection.

/** Equal for tokens that show the same; undefined for what is no public token. */
export function rightsOf(token: string): string | undefined {
  try {
    const part = token.split(".")[1]?.replaceAll("-", "+").replaceAll("_", "/") ?? "";
    const bytes = Uint8Array.from(atob(part), (character) => character.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
    const { sub, scopes, realtime } = claims;
    if (typeof sub !== "string" || !Array.isArray(scopes)) return undefined;
    return JSON.stringify([sub, [...(scopes as unknown[])].sort(), realtime]);
  } catch {
    return undefined;
  }
}
