// One subscription, from the first wish to its end.
//
//            follow                up-to-date
//   idle ──────────────▶ connecting ─────────────▶ live
//    ▲                    ▲  │  ▲ └── reset, lost ──┘ │
//    │                due │  │  └─────────────────────┤
//    │                    │  ▼ passing problem        │
//    │                  retrying ◄────────────────────┤
//    │ leave              │                           │
//    └────────────────────┴── (from any of these) ────┤
//                                                     ▼
//                                    end ─▶ ended, lasting problem ─▶ failed
//
// Pure: inputs come in, the next state and one thing to do come out. `ended` and `failed` are final.

import { remedyFor, type Problem } from "./errors.js";
import type { EndReason, Frame, Reset } from "./frame.js";

export type Phase = "idle" | "connecting" | "live" | "retrying" | "ended" | "failed";

export interface State {
  readonly phase: Phase;
  /** Passing problems since it was last up to date. */
  readonly attempt: number;
  /** How often everything known had to be forgotten, and why the last time. */
  readonly resets: number;
  readonly reset?: Reset;
  /** What is in the way: passing, or lasting once the phase is `failed`. */
  readonly problem?: Problem;
  readonly end?: EndReason;
}

/** `follow`: somebody wants it. `leave`: nobody does any more. `due`: the delay is over. */
export type Input = Frame | { readonly type: "follow" | "leave" | "due" };

/**
 * What to do: ask from the present position; take the frame's data in; forget all data and the
 * position; ask again after a delay, with or without the position; tell the gateway to stop.
 */
export type Action = "ask" | "take" | "forget" | "wait" | "forget-and-wait" | "hang-up" | "none";

export const INITIAL: State = { phase: "idle", attempt: 0, resets: 0 };

export function step(state: State, input: Input): readonly [State, Action] {
  switch (state.phase) {
    case "idle":
      return input.type === "follow" ? [{ ...state, phase: "connecting" }, "ask"] : [state, "none"];
    case "connecting":
    case "live":
      return receive(state, input);
    case "retrying":
      if (input.type === "due") return [{ ...state, phase: "connecting" }, "ask"];
      return input.type === "leave" ? [{ ...state, phase: "idle" }, "none"] : [state, "none"];
    case "ended":
    case "failed":
      return [state, "none"];
  }
}

function receive(state: State, input: Input): readonly [State, Action] {
  switch (input.type) {
    case "run":
    case "gone":
    case "parts":
      return [state, "take"];
    case "cursor":
      return [state, state.phase === "live" ? "take" : "none"];
    case "up-to-date": {
      const { problem: _, ...rest } = state;
      return [{ ...rest, phase: "live", attempt: 0 }, "take"];
    }
    case "reset":
      return [forgotten(state, input.reset, "connecting"), "forget"];
    case "end":
      return [{ ...state, phase: "ended", end: input.end.reason }, "none"];
    case "problem":
      return stumble(state, input.problem);
    case "lost":
      return [
        { ...state, phase: "connecting", ...(input.problem && { problem: input.problem }) },
        "ask",
      ];
    case "leave":
      return [{ ...state, phase: "idle" }, "hang-up"];
    case "follow":
    case "due":
      return [state, "none"];
  }
}

function stumble(state: State, problem: Problem): readonly [State, Action] {
  const next = { ...state, problem, attempt: state.attempt + 1 };
  switch (remedyFor(problem.code)) {
    case "stop":
    case "renew": // the link looks after the token, and has none
      return [{ ...state, problem, phase: "failed" }, "none"];
    case "restart":
      return [
        forgotten(next, { reason: problem.code, message: problem.message }, "retrying"),
        "forget-and-wait",
      ];
    case "retry":
      return [{ ...next, phase: "retrying" }, "wait"];
  }
}

function forgotten(state: State, reset: Reset, phase: Phase): State {
  return { ...state, phase, reset, resets: state.resets + 1 };
}
