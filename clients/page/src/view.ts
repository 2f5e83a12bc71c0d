// What the address asks for: everything after the # but the token.

/** How many runs a list keeps: the newest ones. */
export const MAX_RUNS = 500;

export interface View {
  readonly tags: string;
  readonly task: string;
  readonly batch: string;
  readonly since: string;
  readonly status: string;
  readonly run: string;
}

export const NOTHING: View = {
  tags: "",
  task: "",
  batch: "",
  since: "",
  status: "",
  run: "",
};
const NAMES = ["tags", "task", "batch", "since", "status", "run"] as const;

/** The view and the token of a fragment. */
export function readFragment(hash: string): {
  view: View;
  token: string | undefined;
} {
  const parameters = new URLSearchParams(hash.slice(1));
  const given = NAMES.map((name) => [name, parameters.get(name) ?? ""] as const);
  return {
    view: { ...NOTHING, ...Object.fromEntries(given) },
    token: parameters.get("token")?.trim(),
  };
}

export function fragmentOf(view: View): string {
  const parameters = new URLSearchParams();
  for (const name of NAMES) if (view[name]) parameters.set(name, view[name]);
  return `#${parameters.toString()}`;
}

/** Where a run is shown within a view. */
export function hrefOf(view: View, run: string): string {
  return fragmentOf({ ...view, run });
}

export function show(view: View): void {
  location.hash = fragmentOf(view);
}

/** The names in a list with commas. */
export function namesIn(text: string): string[] {
  return text
    .split(",")
    .map((name) => name.trim())
    .filter(Boolean);
}
