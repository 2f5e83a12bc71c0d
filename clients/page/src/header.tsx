// The bar at the top: whose page this is, and how the connection is.

import { useEffect, useState, type ReactElement, type ReactNode } from "react";
import { openHelp } from "./help.js";

export type HeaderState =
  "idle" | "live" | "connecting" | "retrying" | "offline" | "expired" | "refused";

export function Header({
  state,
  words,
  countdown,
  children,
}: {
  state: HeaderState;
  words: string;
  countdown?: ReactNode;
  children?: ReactNode;
}): ReactElement {
  return (
    <header className="top">
      <a className="brand" href="#" aria-label="runcast, all runs">
        <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
          <rect className="brand-back" width="32" height="32" rx="8" />
          <g fill="none" stroke="#fff" strokeWidth="3" strokeLinecap="round">
            <path d="M8 9c9 0 15 6 15 15M8 16c5 0 8 3 8 8" />
          </g>
          <circle cx="9.5" cy="22.5" r="2.5" fill="#fff" />
        </svg>
        <span>runcast</span>
      </a>
      <div className="connection" id="connection" data-state={state}>
        <span className="dot" aria-hidden="true" />
        <span id="state" role="status" aria-live="polite">
          {words}
        </span>
        <span className="countdown" aria-hidden="true">
          {countdown}
        </span>
      </div>
      {children}
      <ThemeButton />
      <button
        type="button"
        className="quiet round"
        aria-label="Keys"
        title="Keys (?)"
        onClick={openHelp}
      >
        ?
      </button>
    </header>
  );
}

const THEMES = ["light dark", "light", "dark"] as const;
const THEME_WORDS = {
  "light dark": "as the system",
  light: "light",
  dark: "dark",
} as const;
const THEME_SIGNS = { "light dark": "◐", light: "☀", dark: "☾" } as const;
const THEME_KEY = "runcast.theme";

function ThemeButton(): ReactElement {
  const [theme, setTheme] = useState(
    () => THEMES.find((each) => each === localStorage.getItem(THEME_KEY)) ?? "light dark",
  );
  useEffect(() => {
    document.documentElement.style.colorScheme = theme;
    localStorage.setItem(THEME_KEY, theme);
  }, [theme]);
  const words = `Colours: ${THEME_WORDS[theme]}`;
  return (
    <button
      type="button"
      id="theme"
      className="quiet round"
      aria-label={words}
      title={words}
      onClick={() => {
        setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "light dark");
      }}
    >
      {THEME_SIGNS[theme]}
    </button>
  );
}
