// Tabs of one origin that may see the same share one connection.
//
// They gather under a name that says which gateway and which rights. Whoever holds the lock of that
// name leads: its connection serves all. When it goes, the browser gives the lock to the next one,
// which tells the others; they ask again from where they stand, as after any loss. Each tab holds a
// lock of its own too, so that the leader learns when one is gone.

import type { Frame } from "./frame.js";
import { GatewayLink, type Gateway } from "./gateway-link.js";
import type { ConnectionState, Link } from "./link.js";
import type { Request } from "./request.js";
import { Cell, type Store } from "./store.js";
import { rightsOf } from "./token-rights.js";
import { TokenSource } from "./token-source.js";

/**
 * A link over all tabs whose tokens have equal rights.
 *
 * `onLeave`: a newer token of this tab has other rights, so it leaves them; what it follows is told
 * `lost` after that.
 *
 * @throws Error if there is no token, or one that cannot be shared.
 */
export async function tabLink(gateway: Gateway, onLeave: () => void): Promise<Link> {
  const { baseURL, tokens } = gateway;
  let last = await tokens.get();
  const rights = rightsOf(last);
  // A fixed token ends all who share it when it expires.
  if (rights === undefined || !tokens.renewable) throw new Error("This token is not shared.");
  let isFirst = true;
  // Asked only while this tab leads.
  const watched = new TokenSource(async () => {
    if (!isFirst) tokens.spend(last);
    isFirst = false;
    last = await tokens.get();
    if (rightsOf(last) === rights) return last;
    onLeave();
    link.leave();
    throw new Error("the rights are others now");
  });
  const connect = () => new GatewayLink({ ...gateway, tokens: watched });
  const link = new TabLink(`${baseURL} ${rights}`, connect);
  return link;
}

/** To the leader, on the channel of the group; `leading` is for all others. */
type Upward =
  | { readonly type: "open"; readonly tab: string; readonly id: string; readonly request: Request }
  | { readonly type: "close"; readonly tab: string; readonly id: string }
  | { readonly type: "leading" };

/** From the leader, on the channel of one tab. */
interface Downward {
  readonly id: string;
  readonly frame: Frame;
}

interface Asked {
  readonly request: Request;
  readonly receive: (frame: Frame) => void;
  /** Of a leader: tells its connection to stop. */
  stop?: () => void;
}

class TabLink implements Link {
  readonly connection: Store<ConnectionState>;

  readonly #connection = new Cell<ConnectionState>({ status: "shared", reconnects: 0 });
  readonly #tab = crypto.randomUUID();
  readonly #group: string;
  readonly #up: BroadcastChannel;
  readonly #down: BroadcastChannel;
  readonly #connect: () => Link;
  readonly #asked = new Map<string, Asked>();
  readonly #guests = new Map<string, Guest>();
  readonly #closed = new AbortController();
  #leading: Link | undefined;
  #isPresent = false;
  #lastId = 0;

  /**
   * @param group Names the gateway and the rights; equal for all tabs that may share.
   * @param connect Makes the connection, once this tab leads.
   */
  constructor(group: string, connect: () => Link) {
    this.#group = `runcast ${group}`;
    this.#connect = connect;
    this.connection = this.#connection;
    this.#up = new BroadcastChannel(this.#group);
    this.#down = new BroadcastChannel(`${this.#group} ${this.#tab}`);
    this.#up.onmessage = ({ data }) => {
      this.#hear(data as Upward);
    };
    this.#down.onmessage = ({ data }) => {
      const { id, frame } = data as Downward;
      this.#pass(id, frame);
    };
    // Nobody shall take this tab for gone: it speaks once it holds its own lock.
    this.#hold(`${this.#group} ${this.#tab}`, () => {
      this.#isPresent = true;
      for (const [id, { request }] of this.#asked) this.#ask(id, request);
      this.#hold(this.#group, () => {
        this.#lead();
      });
    });
  }

  open(request: Request, receive: (frame: Frame) => void): () => void {
    const id = String(++this.#lastId);
    this.#asked.set(id, { request, receive });
    if (this.#isPresent) this.#ask(id, request);
    return () => {
      const asked = this.#asked.get(id);
      if (!this.#asked.delete(id)) return;
      if (asked?.stop) asked.stop();
      else this.#say({ type: "close", tab: this.#tab, id });
    };
  }

  close(): void {
    this.#asked.clear();
    this.leave();
  }

  /** Let go of the others; all that is asked for is lost. */
  leave(): void {
    this.#closed.abort();
    this.#leading?.close();
    this.#lose();
    this.#up.close();
    this.#down.close();
    for (const guest of this.#guests.values()) guest.channel.close();
  }

  #ask(id: string, request: Request): void {
    const asked = this.#asked.get(id);
    if (!asked) return;
    if (!this.#leading) this.#say({ type: "open", tab: this.#tab, id, request });
    else {
      asked.stop = this.#leading.open(request, (frame) => {
        this.#pass(id, frame);
      });
    }
  }

  #pass(id: string, frame: Frame): void {
    const asked = this.#asked.get(id);
    if (isLast(frame)) this.#asked.delete(id);
    asked?.receive(frame);
  }

  // -- leading ------------------------------------------------------------------------------------

  #lead(): void {
    const link = (this.#leading = this.#connect());
    link.connection.subscribe(() => {
      this.#connection.set(link.connection.getSnapshot());
    });
    this.#say({ type: "leading" });
    this.#lose();
  }

  /** What was asked for is not known to the leader any more, or to be forgotten by it. */
  #lose(): void {
    const all = [...this.#asked];
    this.#asked.clear();
    for (const [id, { receive }] of all) {
      if (!this.#leading) this.#say({ type: "close", tab: this.#tab, id });
      receive({ type: "lost" });
    }
  }

  #hear(message: Upward): void {
    const leading = this.#leading;
    if (message.type === "leading") {
      // Once this tab leads, it is a word of the one before, which came late.
      if (!leading) this.#lose();
      return;
    }
    if (!leading) return;
    const { tab, id } = message;
    const guest = this.#guests.get(tab) ?? this.#welcome(tab);
    guest.open.get(id)?.();
    guest.open.delete(id);
    if (message.type === "close") return;
    guest.open.set(
      id,
      leading.open(message.request, (frame) => {
        if (isLast(frame)) guest.open.delete(id);
        guest.channel.postMessage({ id, frame } satisfies Downward);
      }),
    );
  }

  #welcome(tab: string): Guest {
    const guest = {
      channel: new BroadcastChannel(`${this.#group} ${tab}`),
      open: new Map(),
    } as Guest;
    this.#guests.set(tab, guest);
    this.#hold(`${this.#group} ${tab}`, (release) => {
      release(); // it was given up: the tab is gone
      for (const stop of guest.open.values()) stop();
      guest.channel.close();
      this.#guests.delete(tab);
    });
    return guest;
  }

  // -- the browser --------------------------------------------------------------------------------

  #say(message: Upward): void {
    if (!this.#closed.signal.aborted) this.#up.postMessage(message);
  }

  /** Wait for a lock, and keep it until it is released, this link is closed, or its tab is gone. */
  #hold(name: string, then: (release: () => void) => void): void {
    const { signal } = this.#closed;
    const held = navigator.locks.request(
      name,
      { signal },
      () =>
        new Promise<void>((resolve) => {
          const release = () => {
            resolve();
          };
          signal.addEventListener("abort", release);
          then(release);
        }),
    );
    held.catch(() => undefined); // closed while it waited
  }
}

interface Guest {
  readonly channel: BroadcastChannel;
  /** What tells the connection to stop, by the guest's ids. */
  readonly open: Map<string, () => void>;
}

function isLast({ type }: Frame): boolean {
  return type === "end" || type === "problem" || type === "lost";
}
