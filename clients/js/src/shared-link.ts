// Shares the connection with other tabs where that is possible, and has its own where it is not.

import type { Frame } from "./frame.js";
import { GatewayLink, type Gateway } from "./gateway-link.js";
import { loadTabs } from "./later.js";
import type { ConnectionState, Link } from "./link.js";
import type { Request } from "./request.js";
import { Cell } from "./store.js";

/** Whether there can be other tabs, and what it takes to share with them. */
export function hasTabs(): boolean {
  const { document, BroadcastChannel, navigator } = globalThis as Partial<typeof globalThis>;
  return Boolean(document && BroadcastChannel && (navigator as Partial<Navigator>).locks);
}

interface Waiting {
  readonly request: Request;
  readonly receive: (frame: Frame) => void;
  stop?: () => void;
}

export class SharedLink implements Link {
  readonly connection = new Cell<ConnectionState>({ status: "idle", reconnects: -1 });
  readonly #gateway: Gateway;
  readonly #mayWork: boolean;
  readonly #waiting = new Set<Waiting>();
  #link: Link | undefined;
  #choosing: object | undefined;

  /** `mayWork`: the connection may be that of a worker. */
  constructor(gateway: Gateway, mayWork: boolean) {
    this.#gateway = gateway;
    this.#mayWork = mayWork;
  }

  open(request: Request, receive: (frame: Frame) => void): () => void {
    if (this.#link) return this.#link.open(request, receive);
    const waiting: Waiting = { request, receive };
    this.#waiting.add(waiting);
    if (!this.#choosing) void this.#choose((this.#choosing = {}));
    return () => {
      this.#waiting.delete(waiting);
      waiting.stop?.();
    };
  }

  close(): void {
    this.#choosing = undefined;
    this.#waiting.clear();
    this.#link?.close();
    this.#link = undefined;
  }

  async #choose(mine: object): Promise<void> {
    const link = await this.#shared(mine).catch(() => new GatewayLink(this.#gateway));
    if (this.#choosing !== mine) {
      link.close();
      return;
    }
    this.#choosing = undefined;
    this.#link = link;
    const show = () => {
      if (this.#link === link) this.connection.set(link.connection.getSnapshot());
    };
    link.connection.subscribe(show);
    show();
    for (const waiting of this.#waiting) {
      waiting.stop = link.open(waiting.request, waiting.receive);
    }
    this.#waiting.clear();
  }

  /** The link over other tabs; rejects if the token does not say whom to share with. */
  async #shared(mine: object): Promise<Link> {
    const { tabLink } = await loadTabs();
    if (this.#choosing !== mine) throw new Error("the client was closed");
    const link: Link = await tabLink(this.#gateway, this.#mayWork, () => {
      // The tab's rights are others now: what it follows is asked for anew.
      if (this.#link === link) this.#link = undefined;
    });
    return link;
  }
}
