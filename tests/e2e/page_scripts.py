"""JavaScript that tests run inside the live page, with its own modules."""

# Every cut of a stream of bytes in two, and in single bytes, gives the same events as no cut.
CUT_EVERYWHERE = r"""
async () => {
  const { SseParser } = await import("/page/sse.js");
  const text = "\ufeff: hello\r\nevent: run\r\ndata: {\"word\":\"grün 🌱\"}\r\n\r\n" +
    "retry: 100\ndata:one\ndata: two\nid: c1\n\n" +
    ": keep-alive\nid: c2\n\n" +
    "event: gone\rdata:  x\rid: c3\r\r" +
    "event: run\ndata: never ended";
  const bytes = new TextEncoder().encode(text);
  const parse = (pieces) => {
    const parser = new SseParser();
    return JSON.stringify(pieces.flatMap((piece) => parser.receive(piece)));
  };
  const whole = parse([bytes]);
  let wrong = parse([...bytes].map((byte) => Uint8Array.of(byte))) === whole ? 0 : 1;
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    if (parse([bytes.slice(0, cut), bytes.slice(cut)]) !== whole) wrong += 1;
  }
  return [JSON.parse(whole), bytes.length, wrong];
}
"""

# Ten runs into a table for five, then an older one, a repeated state and a newer state.
FILL_TABLE = """
async () => {
  const { RunTable } = await import("/page/run-table.js");
  const table = new RunTable(5);
  const make = (n, revision) => ({
    id: `run_${n}`, createdAt: `2026-01-01T00:00:0${n}.000Z`, revision,
  });
  for (let n = 0; n < 10; n += 1) table.put(make(n, 7));
  return {
    size: table.size,
    ids: table.newestFirst().map((run) => run.id),
    older: table.put(make(1, 8)),
    repeated: table.put(make(9, 7)),
    newer: table.put(make(9, 8)),
  };
}
"""

# The spans of a run's life: name, begin and end in seconds, and whether it lasts yet; now is 60 s.
SPANS_OF = """
async (given) => {
  const { spansOf } = await import("/page/run-spans.js");
  const at = (second) => new Date(second * 1000).toISOString();
  const run = Object.fromEntries(
    Object.entries(given).map(([name, value]) => [name, name === "status" ? value : at(value)]),
  );
  const told = ({ name, from, to, open }) => [name, from / 1000, to / 1000, open];
  return spansOf(run, 60_000).map(told);
}
"""
SPANS: list[tuple[dict[str, object], list[list[object]]]] = [
    ({"status": "QUEUED", "createdAt": 1, "queuedAt": 1}, [["Queued", 1, 60, True]]),
    ({"status": "DELAYED", "createdAt": 1, "delayedUntil": 90}, [["Delayed", 1, 60, True]]),
    (
        {"status": "CANCELED", "createdAt": 1, "delayedUntil": 90, "finishedAt": 5},
        [["Delayed", 1, 5, False]],
    ),
    (
        {"status": "EXPIRED", "createdAt": 1, "queuedAt": 1, "expiredAt": 9},
        [["Queued", 1, 9, False]],
    ),
    (
        {
            "status": "COMPLETED",
            **{"createdAt": 1, "delayedUntil": 4, "queuedAt": 5, "startedAt": 8, "finishedAt": 20},
        },
        [["Delayed", 1, 5, False], ["Queued", 5, 8, False], ["Executed", 8, 20, False]],
    ),
    (
        {"status": "WAITING", "createdAt": 1, "queuedAt": 1, "startedAt": 2},
        [["Queued", 1, 2, False], ["Waiting", 2, 60, True]],
    ),
]

# What each line adds to the text of a stream; null: it is no text.
TEXT_OF = """
async (lines) => {
  const { textOf } = await import("/page/stream-text.js");
  return lines.map(textOf);
}
"""
TEXTS: dict[str, str | None] = {
    '"plain \\u0000 \\ud83c\\udf31"': "plain \0 🌱",
    "a line of a log": "a line of a log\n",
    '{"choices": [{"delta": {"role": "assistant", "content": ""}}]}': "",
    '{"choices": [{"delta": {"content": "Hello"}}]}': "Hello",
    '{"choices": [{"delta": {}, "finish_reason": "stop"}]}': "",
    '{"choices": [], "usage": {"total_tokens": 7}}': "",
    '{"type": "message_start", "message": {}}': "",
    '{"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}': "Hi",
    '{"type": "content_block_delta", "delta": {"type": "input_json_delta"}}': "",
    '{"type": "response.created", "response": {}}': "",
    '{"type": "response.output_text.delta", "delta": "Hey"}': "Hey",
    '{"type": "text-delta", "delta": "Ho"}': "Ho",
    '{"type": "invoice", "delta": "none of ours"}': None,
    '{"progress": 3}': None,
    "[1, 2]": None,
    "null": None,
    "42": None,
}

# A log that gets more than it keeps: by number, by size, around a resume, and one huge part.
FILL_LOG = """
async () => {
  const { StreamLog } = await import("/page/stream-log.js");
  const look = (log) => ({
    first: log.first, next: log.next, begin: log.begin, kept: log.parts.length,
    size: log.parts.reduce((sum, part) => sum + part.line.length, 0),
  });
  const many = new StreamLog();
  for (let n = 0; n < 5000; n += 1) many.put(`1-${n}`, "7");
  const large = new StreamLog();
  for (let n = 0; n < 50; n += 1) large.put(`1-${n}`, "x".repeat(10_000));
  const twice = new StreamLog();
  for (const n of [3, 4, 5, 4, 5, 6]) twice.put(`1-${n}`, `"${n}"`);
  const huge = new StreamLog();
  huge.put("1-0", "small");
  huge.put("1-1", "x".repeat(1_000_000));
  return {
    many: look(many),
    large: look(large),
    twice: [look(twice), twice.parts.map((part) => part.text).join("")],
    huge: [look(huge).first, look(huge).kept, look(huge).size < 201_000],
  };
}
"""
