// Serves the tabs of a group over one connection: in the tab or the worker that has it.

import { TAB_MS } from "./constants.js";
import { RuncastError } from "./errors.js";
import { isLast, type Frame } from "./frame.js";
import type { GatewayLink } from "./gateway-link.js";
import type { Downward, Group, Upward } from "./tab-group.js";

interface Guest {
  readonly channel: BroadcastChannel;
  /** What tells the connection to stop, by the guest's ids. */
  readonly open: Map<string, () => void>;
}

type Answer = Pick<Extract<Upward, { type: "token" }>, "token" | "why">;

interface Question {
  readonly tab: string;
  readonly answer: (answer: Answer) => void;
}

export class Leader {
  readonly #group: Group;
  readonly #link: GatewayLink;
  readonly #via: "tab" | "worker";
  readonly #guests = new Map<string, Guest>(); // who spoke last is last
  #asking: Question | undefined;

  /** Take over: all are told, and ask anew for what they follow. */
  constructor(group: Group, link: GatewayLink, via: "tab" | "worker") {
    this.#group = group;
    this.#link = link;
    this.#via = via;
    link.connection.subscribe(() => {
      for (const guest of this.#guests.values()) this.#showConnection(guest);
    });
    group.say({ type: "leading" });
  }

  hear(message: Upward): void {
    if (message.type === "leading") return;
    const guest = this.#guests.get(message.tab) ?? this.#welcome(message.tab);
    this.#guests.delete(message.tab);
    this.#guests.set(message.tab, guest);
    switch (message.type) {
      case "back":
        this.#link.back(message.isNewNetwork);
        break;
      case "token":
        if (message.token !== undefined || this.#asking?.tab === message.tab)
          this.#asking?.answer(message);
        break;
      case "open":
      case "close":
        guest.open.get(message.id)?.();
        guest.open.delete(message.id);
        if (message.type === "open") this.#open(guest, message);
    }
  }

  /**
   * Ask the tabs for a token, one after the other, those first who spoke last.
   *
   * @throws RuncastError `token_unavailable` if none has one.
   */
  async token(spent: string | undefined): Promise<string> {
    let reason = "No tab is there to give a token.";
    for (const tab of [...this.#guests.keys()].reverse()) {
      if (!this.#guests.has(tab)) continue;
      const { token, why } = await this.#ask(tab, spent);
      if (token !== undefined) return token;
      reason = why ?? reason;
    }
    throw new RuncastError("token_unavailable", reason);
  }

  close(): void {
    for (const { channel } of this.#guests.values()) channel.close();
    this.#guests.clear();
    this.#asking?.answer({});
    this.#link.close();
  }

  #ask(tab: string, spent: string | undefined): Promise<Answer> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#asking?.answer({ why: "A tab did not answer with a token." });
      }, TAB_MS);
      this.#asking = {
        tab,
        answer: (answer) => {
          clearTimeout(timer);
          this.#asking = undefined;
          resolve(answer);
        },
      };
      const guest = this.#guests.get(tab);
      if (guest) say(guest, { type: "token", ...(spent !== undefined && { spent }) });
    });
  }

  #open(guest: Guest, { id, request }: Extract<Upward, { type: "open" }>): void {
    const receive = (frame: Frame) => {
      if (isLast(frame)) guest.open.delete(id);
      say(guest, { type: "frame", id, frame });
    };
    guest.open.set(id, this.#link.open(request, receive));
  }

  #welcome(tab: string): Guest {
    const guest: Guest = { channel: this.#group.channelOf(tab), open: new Map() };
    this.#guests.set(tab, guest);
    this.#showConnection(guest);
    this.#group.whenGone(tab, () => {
      for (const stop of guest.open.values()) stop();
      guest.channel.close();
      this.#guests.delete(tab);
      if (this.#asking?.tab === tab) this.#asking.answer({});
    });
    return guest;
  }

  #showConnection(guest: Guest): void {
    say(guest, {
      type: "connection",
      state: { ...this.#link.connection.getSnapshot(), via: this.#via },
    });
  }
}

function say({ channel }: Guest, message: Downward): void {
  channel.postMessage(message);
}
