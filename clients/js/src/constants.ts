// Names on the wire that several modules share, and every time that the client waits.

export const SOCKET_PATH = "/realtime/v1/ws";
export const SOCKET_PROTOCOL = "runcast.v1";

/** How long a connection may take until the gateway has said its first word. */
export const HELLO_MS = 10_000;
/** The gateway says something every 15 seconds where it has to: after this, ask whether it lives. */
export const SILENCE_MS = 20_000;
/** How long the answer to that may take; an event stream, which cannot be asked, gets it on top. */
export const PONG_MS = 10_000;
/** The same where there is a reason for doubt: the machine slept, or the network changed. */
export const DOUBT_MS = 3_000;

export const FIRST_DELAY_MS = 500;
export const LONGEST_DELAY_MS = 30_000;

/** How long what nobody follows any more is kept: React unmounts and mounts again at once. */
export const LINGER_MS = 1_000;

/** How long a SharedWorker may take to begin, until a tab has the connection instead. */
export const WORKER_MS = 3_000;
/** How long the worker waits for the token of one tab, which may be frozen, before it asks another. */
export const TAB_MS = 5_000;

/** How long a transport that did not get through is not tried again; doubled each time. */
export const SET_ASIDE_MS = 60_000;
export const LONGEST_SET_ASIDE_MS = 3_600_000;

/** How long the application's token function may take. */
export const TOKEN_MS = 30_000;
/**
 * A fresh token is asked for when a quarter of the time is left, but at most a minute, and at least
 * two seconds before the end: the gateway ends a connection a little early.
 */
export const RENEW_AHEAD_MS = [2_000, 60_000] as const;
/** Timers of browsers cannot wait for longer. */
export const LONGEST_TIMER_MS = 0x7fff_ffff;
