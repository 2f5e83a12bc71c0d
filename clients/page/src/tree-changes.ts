// Which places of a JSON value are others than before. Pure.

const MAX_PLACES = 2000;

/** The path of an entry below a path. */
export function below(path: string, key: string | number): string {
  return `${path}/${String(key).replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

/** Paths of all places that are new or have another value, with all that they are in. */
export function changedPaths(before: unknown, after: unknown): Set<string> {
  const paths = new Set<string>();
  compare(before, after, "", paths);
  return paths;
}

function compare(before: unknown, after: unknown, path: string, paths: Set<string>): boolean {
  if (Object.is(before, after) || paths.size >= MAX_PLACES) return false;
  let isOther = true;
  if (isBranch(before) && isBranch(after) && Array.isArray(before) === Array.isArray(after)) {
    const known = new Map(Object.entries(before));
    isOther = Object.keys(before).some((key) => !Object.hasOwn(after, key));
    for (const [key, value] of Object.entries(after)) {
      if (!known.has(key)) paths.add(below(path, key));
      const differs = !known.has(key) || compare(known.get(key), value, below(path, key), paths);
      isOther ||= differs;
    }
  }
  if (isOther) paths.add(path);
  return isOther;
}

export function isBranch(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** Places that changed, each with the number of the change that it did so in last. */
export interface Changes {
  readonly value: unknown;
  readonly number: number;
  readonly places: ReadonlyMap<string, number>;
}

export function withNewer(changes: Changes, value: unknown): Changes {
  if (Object.is(changes.value, value)) return changes;
  const number = changes.number + 1;
  const places = new Map(changes.places.size > MAX_PLACES ? [] : changes.places);
  for (const path of changedPaths(changes.value, value)) places.set(path, number);
  return { value, number, places };
}
