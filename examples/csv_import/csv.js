// CSV as RFC 4180 has it: quoted fields, doubled quotes, line ends of any kind.

const FIELD = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\n|\r|$)/y;

/** Read a text into rows, an object of texts each, named by the first line. Blank lines are none. */
export function readCsv(text) {
  const [names, ...lines] = linesOf(text).filter((fields) => fields.join("") !== "");
  return lines.map((fields) =>
    Object.fromEntries((names ?? []).map((name, at) => [name.trim(), (fields[at] ?? "").trim()])),
  );
}

function linesOf(text) {
  const lines = [[]];
  FIELD.lastIndex = text.startsWith("\ufeff") ? 1 : 0;
  while (FIELD.lastIndex <= text.length) {
    const found = FIELD.exec(text);
    if (!found) throw new Error(`Line ${lines.length} is no CSV: a quote is out of place.`);
    const [, quoted, plain, end] = found;
    lines.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end === "") return lines;
    if (end !== ",") lines.push([]);
  }
  return lines;
}
