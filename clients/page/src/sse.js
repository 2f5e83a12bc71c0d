// Server-Sent Events, bytes to events: no I/O, so that any cut of the bytes can be tried.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

const MAX_EVENT_CHARACTERS = 64 * 1024 * 1024;

export class SseParser {
  #decoder = new TextDecoder();
  #pending = ""; // the line that has not ended yet
  #afterReturn = false; // a line feed that follows a carriage return is part of the same line end
  #id = null;
  #type = "";
  #data = [];
  #size = 0;

  // Take bytes and return what they completed: [{type, data, id}]. `id` is null where the event
  // brought none. A lone `id:` comes too, as an event of type "id" without data.
  receive(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (this.#afterReturn && text !== "") {
      this.#afterReturn = false;
      if (text[0] === "\n") text = text.slice(1);
    }
    this.#afterReturn ||= text.endsWith("\r");
    const lines = (this.#pending + text).split(/\r\n|\n|\r/);
    this.#pending = lines.pop();
    if (this.#size + this.#pending.length > MAX_EVENT_CHARACTERS) {
      throw new RangeError("The event is too large.");
    }
    const events = [];
    for (const line of lines) {
      if (line === "") this.#dispatch(events);
      else this.#field(line);
    }
    return events;
  }

  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") {
      this.#data.push(value);
      this.#size += value.length;
    } else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }

  #dispatch(events) {
    if (this.#data.length > 0) {
      events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.#id });
    } else if (this.#id !== null) {
      events.push({ type: "id", data: "", id: this.#id });
    }
    this.#id = null;
    this.#type = "";
    this.#data = [];
    this.#size = 0;
  }
}
