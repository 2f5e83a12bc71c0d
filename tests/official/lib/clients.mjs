// The official packages, unmodified, by generation.

const ENTRY = { v3: "sdk-v3/v3", v4: "sdk-v4" };
export const VERSION = { v3: "3.3.17", v4: "4.8.3" };

export async function loadClients(generation) {
  return { sdk: await import(ENTRY[generation]) };
}
