// Tabs of one origin that may see the same share one connection.
//
// A worker has it where there can be one; otherwise a tab, and when that goes, the next in line. A
// new leader tells all; they ask again from where they stand, as after any loss.

import { WORKER_MS } from "./constants.js";
import { GatewayLink, type Gateway } from "./gateway-link.js";
import { isLast, type Frame } from "./frame.js";
import type { ConnectionState, Link } from "./link.js";
import type { Request } from "./request.js";
import { listenToPage } from "./signals.js";
import { Cell, type Store } from "./store.js";
import { Group, type Downward, type Upward } from "./tab-group.js";
import { Leader } from "./tab-leader.js";
import type { Job } from "./tab-worker.js";
import { rightsOf } from "./token-rights.js";
import { TokenSource } from "./token-source.js";

/**
 * A link over all tabs whose tokens have equal rights.
 *
 * `mayWork`: a worker may have the connection. `onLeave`: a newer token of this tab has other
 * rights, so it leaves them; what it follows is told `lost` after that.
 *
 * @throws Error if there is no token, or one that cannot be shared.
 */
export async function tabLink(
  gateway: Gateway,
  mayWork: boolean,
  onLeave: () => void,
): Promise<Link> {
  const { baseURL, tokens, transports } = gateway;
  const rights = rightsOf(await tokens.get());
  // A fixed token ends all who share it when it expires.
  if (rights === undefined || !tokens.renewable) throw new Error("This token is not shared.");
  const group = `${baseURL} ${rights}`;
  const job = mayWork ? { group, baseURL, transports } : undefined;
  const give = async (spent: string | undefined) => {
    if (spent !== undefined) tokens.spend(spent);
    const token = await tokens.get();
    if (rightsOf(token) === rights) return token;
    onLeave();
    link.leave();
    throw new Error("the rights are others now");
  };
  const link = new TabLink(group, job, gateway, give);
  return link;
}

interface Asked {
  readonly request: Request;
  readonly receive: (frame: Frame) => void;
  /** Of a leader: tells its connection to stop. */
  stop?: () => void;
}

class TabLink implements Link {
  readonly connection: Store<ConnectionState>;

  readonly #connection = new Cell<ConnectionState>({ status: "connecting", reconnects: -1 });
  readonly #tab = crypto.randomUUID();
  readonly #group: Group;
  readonly #down: BroadcastChannel;
  readonly #gateway: Gateway;
  /** A token of this tab, other than the spent one. */
  readonly #give: (spent: string | undefined) => Promise<string>;
  readonly #asked = new Map<string, Asked>();
  readonly #stopListening: () => void;
  #leading: { readonly link: GatewayLink; readonly leader: Leader } | undefined;
  #isPresent = false;
  #lastId = 0;

  constructor(
    group: string,
    job: Job | undefined,
    gateway: Gateway,
    give: (spent: string | undefined) => Promise<string>,
  ) {
    this.#gateway = gateway;
    this.#give = give;
    this.connection = this.#connection;
    this.#group = new Group(group, (message) => {
      this.#hear(message);
    });
    this.#down = this.#group.channelOf(this.#tab);
    this.#down.onmessage = ({ data }) => {
      this.#obey(data as Downward);
    };
    this.#stopListening = listenToPage({
      back: (isNewNetwork) => {
        if (this.#isPresent) this.#group.say({ type: "back", tab: this.#tab, isNewNetwork });
      },
      away: () => undefined,
    });
    // Nobody shall take this tab for gone: it speaks once it holds its own lock.
    this.#group.stay(this.#tab, () => {
      this.#isPresent = true;
      for (const [id, { request }] of this.#asked) this.#ask(id, request);
      void this.#lineUp(job);
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
      else this.#group.say({ type: "close", tab: this.#tab, id });
    };
  }

  close(): void {
    this.#asked.clear();
    this.leave();
  }

  /** Let go of the others; all that is asked for is lost. */
  leave(): void {
    this.#stopListening();
    this.#leading?.leader.close();
    this.#lose();
    this.#group.close();
    this.#down.close();
  }

  #ask(id: string, request: Request): void {
    const asked = this.#asked.get(id);
    if (!asked) return;
    if (!this.#leading) this.#group.say({ type: "open", tab: this.#tab, id, request });
    else {
      asked.stop = this.#leading.link.open(request, (frame) => {
        this.#pass(id, frame);
      });
    }
  }

  #pass(id: string, frame: Frame): void {
    const asked = this.#asked.get(id);
    if (isLast(frame)) this.#asked.delete(id);
    asked?.receive(frame);
  }

  /** What was asked for is not known to the leader any more, or to be forgotten by it. */
  #lose(): void {
    const all = [...this.#asked];
    this.#asked.clear();
    for (const [id, { receive }] of all) {
      if (!this.#leading) this.#group.say({ type: "close", tab: this.#tab, id });
      receive({ type: "lost" });
    }
  }

  #hear(message: Upward): void {
    // Once this tab leads, a word of the leader before came late.
    if (this.#leading) this.#leading.leader.hear(message);
    else if (message.type === "leading") this.#lose();
  }

  #obey(message: Downward): void {
    if (this.#leading) return;
    switch (message.type) {
      case "frame":
        this.#pass(message.id, message.frame);
        break;
      case "connection":
        this.#connection.set(message.state);
        break;
      case "token": {
        const answer = { type: "token", tab: this.#tab } as const;
        this.#give(message.spent).then(
          (token) => {
            this.#group.say({ ...answer, token });
          },
          (error: unknown) => {
            this.#group.say({ ...answer, why: (error as Error).message });
          },
        );
      }
    }
  }

  // -- leading ------------------------------------------------------------------------------------

  /** Let a worker lead if one can, and take its place if it goes. */
  async #lineUp(job: Job | undefined): Promise<void> {
    if (job) await workerFor(this.#tab, job, this.#group.signal);
    this.#group.whenLeading(() => {
      this.#lead();
    });
  }

  #lead(): void {
    let last: string | undefined;
    const tokens = new TokenSource(async () => (last = await this.#give(last)));
    const link = new GatewayLink({ ...this.#gateway, tokens });
    this.#leading = { link, leader: new Leader(this.#group, link, "tab") };
    link.connection.subscribe(() => {
      this.#connection.set(link.connection.getSnapshot());
    });
    this.#lose();
  }
}

/** Start the worker, or find it; resolves when it stands in line, or will not. */
function workerFor(tab: string, job: Job, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const give = () => {
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(give, WORKER_MS);
    signal.addEventListener("abort", give);
    try {
      // In one expression, as bundlers look for it.
      const worker = new SharedWorker(new URL("./tab-worker.js", import.meta.url), {
        type: "module",
        name: JSON.stringify(job),
      });
      worker.onerror = worker.port.onmessage = give;
      worker.port.postMessage(tab);
    } catch {
      give(); // no SharedWorker, or the page may not load it
    }
  });
}
