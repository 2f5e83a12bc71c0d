// The streams of the selected run: what came of each, and which ones are followed.
//
// A browser opens six connections to a host and no more, over all of its tabs. So only streams that
// are unfolded in a visible page are followed, and few at once; their feeds resume where they were.

import { StreamLog } from "./stream-log.js";

const MAX_STREAMS = 50;
const MAX_FOLLOWED = 3;

export class RunStreams {
  #streams = new Map(); // key → {key, log, feed, open}
  #follow;
  #visible = true;

  // follow(key, handlers) makes a feed that is not started yet.
  constructor(follow) {
    this.#follow = follow;
  }

  get all() {
    return [...this.#streams.values()];
  }

  get feeds() {
    return this.all.filter((stream) => this.#isFollowed(stream)).map((stream) => stream.feed);
  }

  // Tells how many of these streams are left out.
  show(keys) {
    for (const key of keys.slice(0, MAX_STREAMS)) {
      if (this.#streams.has(key)) continue;
      const log = new StreamLog();
      const feed = this.#follow(key, {
        onForget: () => log.clear(),
        onEvent: (type, data, id) => type === "message" && log.put(id, data),
      });
      this.#streams.set(key, { key, log, feed, open: false });
      if (this.#streams.size <= MAX_FOLLOWED) this.setOpen(key, true);
    }
    return Math.max(0, keys.length - MAX_STREAMS);
  }

  setOpen(key, open) {
    const stream = this.#streams.get(key);
    if (!stream || stream.open === open) return;
    stream.open = open;
    if (!open) return stream.feed.stop();
    this.#makeRoomFor(stream);
    if (this.#visible && stream.feed.state !== "ended") stream.feed.start();
  }

  setVisible(visible) {
    if (visible === this.#visible) return;
    this.#visible = visible;
    for (const stream of this.all) {
      if (!stream.open || stream.feed.state === "ended") continue;
      if (visible) stream.feed.start();
      else stream.feed.stop();
    }
  }

  useToken(token) {
    for (const stream of this.all) stream.feed.useToken(token, this.#isFollowed(stream));
  }

  clear() {
    for (const { feed } of this.all) feed.stop();
    this.#streams.clear();
  }

  #isFollowed(stream) {
    return this.#visible && stream.open && stream.feed.state !== "ended";
  }

  #makeRoomFor(wanted) {
    const others = this.all.filter((stream) => stream !== wanted && this.#isFollowed(stream));
    for (const stream of others.slice(0, others.length - MAX_FOLLOWED + 1)) {
      this.setOpen(stream.key, false);
    }
  }
}
