// Server-Sent Events, bytes to events: no I/O, so that any cut of the bytes can be tried.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

export interface ServerSentEvent {
  /** "message" where the event has no name; "id" for a lone id, which comes with keep-alives. */
  readonly type: string;
  readonly data: string;
  /** As it stood on this very event; empty where the gateway wants the last one to be forgotten. */
  readonly id: string | undefined;
}

const MAX_EVENT_CHARACTERS = 64 * 1024 * 1024;

export class SseParser {
  readonly #decoder = new TextDecoder();
  #unended: string[] = []; // pieces of the line that has not ended yet
  #afterReturn = false; // a line feed behind a carriage return belongs to the same line end
  #size = 0;
  #type = "";
  #data: string[] = [];
  #id: string | undefined;

  /**
   * Take bytes, and give the events that they completed.
   *
   * @throws RangeError if an event grows beyond 64 Mi characters.
   */
  receive(bytes: Uint8Array): ServerSentEvent[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (this.#afterReturn && text !== "") {
      this.#afterReturn = false;
      if (text.startsWith("\n")) text = text.slice(1);
    }
    this.#afterReturn ||= text.endsWith("\r");
    const events: ServerSentEvent[] = [];
    const lines = text.split(/\r\n|\n|\r/);
    const last = lines.pop() ?? "";
    for (const line of lines) {
      this.#unended.push(line);
      this.#line(this.#unended.join(""), events);
      this.#unended = [];
    }
    this.#unended.push(last);
    this.#size += last.length;
    if (this.#size > MAX_EVENT_CHARACTERS) throw new RangeError("An event is too large.");
    return events;
  }

  #line(line: string, events: ServerSentEvent[]): void {
    if (line === "") {
      this.#dispatch(events);
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "data") {
      this.#data.push(value);
      this.#size += value.length;
    } else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }

  #dispatch(events: ServerSentEvent[]): void {
    if (this.#data.length > 0) {
      events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.#id });
    } else if (this.#id !== undefined) {
      events.push({ type: "id", data: "", id: this.#id });
    }
    this.#size = 0;
    this.#type = "";
    this.#data = [];
    this.#id = undefined;
  }
}
