// Where a person gives a token.

import type { ReactElement } from "react";

/** Why one is asked for. */
export type Reason = "none" | "ending" | "expired" | "refused" | "other";

export function TokenForm({
  reason,
  onToken,
}: {
  reason: Reason;
  onToken: (token: string) => void;
}): ReactElement {
  return (
    <form
      className="card token"
      data-reason={reason}
      id="token-form"
      onSubmit={(event) => {
        event.preventDefault();
        const field = event.currentTarget.elements.namedItem("token") as HTMLInputElement;
        const given = field.value.trim();
        field.value = "";
        if (given) onToken(given);
      }}
    >
      {reason === "none" && (
        <p className="welcome">
          <strong>Watch your runs live</strong>
          This page follows them as they change, with what your token allows.
        </p>
      )}
      <label htmlFor="token-field" id="token-title">
        {TITLES[reason]}
      </label>
      <div className="line">
        <input
          id="token-field"
          name="token"
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          placeholder="public access token or secret key"
          aria-describedby="token-help"
        />
        <button type="submit">Watch</button>
      </div>
      <p className="help" id="token-help">
        <code>./dev</code> prints a link that brings one; <code>runcast token</code> mints one. It
        stays in this tab and is sent over the connection, never in a URL.
      </p>
    </form>
  );
}

const TITLES: Readonly<Record<Reason, string>> = {
  none: "Paste a token to begin",
  ending: "This token ends soon. Paste a fresh one, and nothing is interrupted",
  expired: "The token has expired. Paste a fresh one to go on",
  refused: "This token is refused. Paste another one",
  other: "Use another token",
};
