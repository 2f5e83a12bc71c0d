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
