// Keeps a connection to the gateway for as long as something is asked for, over the transport that
// gets through, under a token that is good.
//
//   idle ──▶ connecting ──▶ open ──▶ waiting ──▶ connecting …
//                 └──────────┴──▶ refused (the next request tries again)
//
// When a connection ends, all who asked are told `lost`; they ask again at once, from where they
// stand, and are served over the next connection.

import { delayBefore } from "./backoff.js";
import { FIRST_DELAY_MS, LINGER_MS, LONGEST_DELAY_MS, RENEW_AHEAD_MS } from "./constants.js";
import { problemIn, type Problem } from "./errors.js";
import { isLast, type Frame } from "./frame.js";
import type { ConnectionState, Link, TransportKind } from "./link.js";
import type { Request } from "./request.js";
import { listenToPage } from "./signals.js";
import { Cell, type Store } from "./store.js";
import type { TokenSource } from "./token-source.js";
import { Timers } from "./timers.js";
import { TransportChoice } from "./transport-choice.js";
import type { Outcome, Transport } from "./transport.js";
import { WebSocketTransport } from "./websocket-transport.js";

export interface Gateway {
  readonly baseURL: string;
  readonly tokens: TokenSource;
  readonly fetch: typeof fetch;
  readonly WebSocket: typeof WebSocket | undefined;
  /** In order of preference. */
  readonly transports: readonly [TransportKind, ...TransportKind[]];
  readonly loadSse: () => Promise<typeof import("./sse-transport.js")>;
}

interface Asked {
  readonly request: Request;
  readonly receive: (frame: Frame) => void;
}

interface Attempt {
  readonly kind: TransportKind;
  transport?: Transport;
  token?: string;
  /** Whether the token function was asked for this very connection. */
  isFresh?: boolean;
}

export class GatewayLink implements Link {
  readonly connection: Store<ConnectionState>;

  readonly #gateway: Gateway;
  readonly #choice: TransportChoice;
  readonly #connection = new Cell<ConnectionState>({ status: "idle", reconnects: -1 });
  readonly #asked = new Map<string, Asked>();
  #stopListening: (() => void) | undefined;
  #lastId = 0;
  /** The connection that is made or there; what an earlier one says is of no interest. */
  #current: Attempt | undefined;
  #attempt = 0; // connections lost, and tokens expired, since something was up to date
  #expiries = 0;
  #refusals = 0; // of newer tokens, one after the other
  readonly #timers = new Timers<"retry" | "linger" | "renew" | "better">();

  constructor(gateway: Gateway) {
    this.#gateway = gateway;
    this.#choice = new TransportChoice(gateway.transports);
    this.connection = this.#connection;
  }

  open(request: Request, receive: (frame: Frame) => void): () => void {
    const id = (++this.#lastId).toString(36);
    this.#asked.set(id, { request, receive });
    this.#timers.clear("linger");
    if (this.#current) this.#current.transport?.subscribe(id, request);
    else if (!this.#timers.isSet("retry")) this.#connect();
    return () => {
      if (!this.#asked.delete(id)) return;
      this.#current?.transport?.unsubscribe(id);
      if (this.#asked.size === 0) this.#rest();
    };
  }

  /** The network, or the person, is back: whatever waits should not wait any longer. */
  readonly back = (isNewNetwork: boolean): void => {
    if (isNewNetwork) this.#choice.forget();
    this.#current?.transport?.doubt();
    if (!this.#timers.isSet("retry")) return;
    this.#timers.clear("retry");
    this.#attempt = 0;
    if (this.#asked.size > 0) this.#connect();
  };

  ping(): void {
    this.#current?.transport?.ping();
  }

  close(): void {
    this.#asked.clear();
    this.#sleep();
  }

  // -- making connections -------------------------------------------------------------------------

  #connect(): void {
    const kind = this.#choice.next(Date.now());
    const mine: Attempt = { kind };
    this.#current = mine;
    this.#stopListening ??= this.#listen();
    this.#show("connecting");
    if (this.#current !== mine) return; // a listener closed the client
    const isFresh = this.#gateway.tokens.renewable && !this.#gateway.tokens.isKnown;
    this.#gateway.tokens.get().then(
      (token) => {
        if (this.#current !== mine) return;
        mine.token = token;
        mine.isFresh = isFresh;
        this.#dial(mine, token);
      },
      (error: unknown) => {
        if (this.#current === mine)
          this.#over({ kind: "lost", heard: true, problem: problemIn(error) });
      },
    );
  }

  #dial(mine: Attempt, token: string): void {
    const ifCurrent =
      <Given extends unknown[]>(then: (...given: Given) => void) =>
      (...given: Given) => {
        if (this.#current === mine) then(...given);
      };
    const events = {
      frame: ifCurrent(this.#pass),
      ready: ifCurrent(this.#ready),
      answered: (latencyMs: number) => {
        this.#connection.set({ ...this.#connection.getSnapshot(), latencyMs });
      },
      tokenRefused: ifCurrent(() => {
        this.#renewIn(delayBefore(this.#refusals++));
      }),
      closed: ifCurrent(this.#over),
    };
    const address = { baseURL: this.#gateway.baseURL, token };
    const { WebSocket, fetch } = this.#gateway;
    const begin = (transport: Transport) => {
      mine.transport = transport;
      for (const [id, { request }] of this.#asked) transport.subscribe(id, request);
    };
    try {
      if (mine.kind === "websocket" && WebSocket) {
        begin(new WebSocketTransport(address, events, WebSocket));
        return;
      }
    } catch (error) {
      this.#over({ kind: "lost", heard: false, problem: problemIn(error) });
      return;
    }
    this.#gateway.loadSse().then(
      ifCurrent(({ SseTransport }) => {
        begin(new SseTransport(address, events, fetch));
      }),
      ifCurrent((error: unknown) => {
        this.#over({ kind: "lost", heard: true, problem: problemIn(error) });
      }),
    );
  }

  readonly #pass = (id: string, frame: Frame): void => {
    const asked = this.#asked.get(id);
    if (!asked) return;
    if (isLast(frame)) this.#asked.delete(id);
    if (frame.type === "up-to-date") this.#attempt = this.#expiries = 0;
    asked.receive(frame);
    if (this.#asked.size === 0) this.#rest();
  };

  readonly #ready = (expiresAt: number | undefined): void => {
    const current = this.#current;
    if (!current) return;
    this.#choice.succeeded(current.kind, Date.now());
    this.#refusals = 0;
    const { status, reconnects } = this.#connection.getSnapshot();
    if (status !== "open") {
      this.#connection.set({ status: "open", transport: current.kind, reconnects: reconnects + 1 });
    }
    if (this.#current !== current) return; // a listener closed the client
    const better = this.#choice.betterAt(current.kind);
    if (better !== undefined) {
      this.#timers.after("better", better - Date.now(), () => {
        this.#drop({ code: "connection_lost", message: "Trying a better transport." }, 0);
      });
    }
    if (expiresAt === undefined) return;
    const left = expiresAt * 1000 - Date.now();
    // Not if this machine's clock is wrong: then the gateway says when the token is over.
    if (left <= 0) return;
    const [least, most] = RENEW_AHEAD_MS;
    this.#renewIn(Math.max(left - Math.min(Math.max(left / 4, least), most), FIRST_DELAY_MS));
  };

  // -- the token ----------------------------------------------------------------------------------

  /** Replace the token under the open connection. */
  #renewIn(ms: number): void {
    if (!this.#gateway.tokens.renewable) return;
    this.#timers.after("renew", ms, () => {
      const { tokens } = this.#gateway;
      const mine = this.#current;
      if (mine?.token === undefined) return;
      tokens.spend(mine.token);
      tokens.get().then(
        (token) => {
          if (this.#current !== mine) return;
          mine.token = token;
          mine.transport?.authenticate(token);
        },
        () => {
          if (this.#current === mine) this.#renewIn(delayBefore(3));
        },
      );
    });
  }

  // -- their ends ---------------------------------------------------------------------------------

  readonly #over = (outcome: Outcome): void => {
    const current = this.#current;
    if (!current) return;
    const { tokens } = this.#gateway;
    switch (outcome.kind) {
      case "lost":
        if (!outcome.heard) this.#choice.failed(current.kind);
        this.#endWith(outcome.problem, delayBefore(this.#attempt++));
        break;
      case "reconnect":
        this.#endWith(GOING_AWAY, Math.min(outcome.delayMs, LONGEST_DELAY_MS));
        break;
      case "expired":
        if (tokens.renewable) {
          if (current.token !== undefined) tokens.spend(current.token);
          // At once, unless tokens come that expire before anything could be done with them.
          this.#endWith(EXPIRED, this.#expiries === 0 ? 0 : delayBefore(this.#expiries));
          this.#expiries += 1;
        } else this.#refuse(EXPIRED);
        break;
      case "refused":
        if (current.token !== undefined) tokens.spend(current.token);
        // A fresh token may help where an older one was refused; one that was just given will not.
        if (tokens.renewable && !current.isFresh) this.#endWith(outcome.problem, 0);
        else this.#refuse(outcome.problem);
    }
  };

  /** End the connection, and make another one after the delay. */
  #drop(problem: Problem, delay: number): void {
    if (!this.#current) return;
    this.#current.transport?.close();
    this.#endWith(problem, delay);
  }

  #endWith(problem: Problem, delay: number): void {
    this.#disconnect();
    this.#timers.after("retry", delay, () => {
      if (this.#asked.size > 0) this.#connect();
      else this.#sleep();
    });
    this.#show("waiting", problem, Date.now() + delay);
    // They ask again at once, which is why all are taken out first.
    for (const { receive } of this.#takeAll()) receive({ type: "lost", problem });
  }

  #refuse(problem: Problem): void {
    this.#sleep();
    this.#show("refused", problem);
    for (const { receive } of this.#takeAll()) receive({ type: "problem", problem });
  }

  #takeAll(): Asked[] {
    const all = [...this.#asked.values()];
    this.#asked.clear();
    return all;
  }

  #disconnect(): void {
    this.#current = undefined;
    this.#timers.clear("renew", "better");
  }

  /** Nothing is asked for any more: keep the connection for a moment. */
  #rest(): void {
    if (!this.#stopListening) return; // it sleeps already
    this.#timers.after("linger", LINGER_MS, () => {
      this.#sleep();
    });
  }

  #sleep(): void {
    this.#current?.transport?.close();
    this.#disconnect();
    this.#timers.clear("retry", "linger");
    this.#stopListening?.();
    this.#stopListening = undefined;
    this.#show("idle");
  }

  // -- the page -----------------------------------------------------------------------------------

  #listen(): () => void {
    return listenToPage({
      back: this.back,
      away: () => {
        this.#drop(
          { code: "connection_lost", message: "The page was put away." },
          LONGEST_DELAY_MS,
        );
      },
    });
  }

  #show(status: ConnectionState["status"], problem?: Problem, retryAt?: number): void {
    const { reconnects } = this.#connection.getSnapshot();
    this.#connection.set({ status, reconnects, problem, retryAt });
  }
}

const EXPIRED: Problem = {
  code: "expired_token",
  message: "The token has expired. A function as `token` gives fresh ones.",
};
const GOING_AWAY: Problem = { code: "draining", message: "The gateway is going away." };
