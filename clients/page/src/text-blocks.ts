// A text that grows at its end and is cut at its beginning, in blocks that stay as they are. Pure.
//
// A page that draws the blocks touches only the last one when text is added.

const BLOCK = 2000;

export interface Block {
  /** How many characters of the whole text come before it. */
  readonly at: number;
  readonly text: string;
}

/** Bring blocks up to date with a text of which so many characters are gone. */
export function extended(blocks: readonly Block[], text: string, gone: number): readonly Block[] {
  if (text === "" && blocks.length === 0) return blocks;
  const last = blocks.at(-1);
  const first = blocks[0];
  const end = gone + text.length;
  const drawn = last ? last.at + last.text.length : 0;
  const goesOn = last && first && first.at <= gone && gone <= drawn && drawn <= end;
  if (
    !goesOn ||
    !text.startsWith(last.text.slice(Math.max(gone - last.at, 0)), Math.max(last.at - gone, 0))
  ) {
    return split(text, gone);
  }
  const kept = blocks.filter((block) => block.at + block.text.length > gone);
  if (drawn === end) return kept.length === blocks.length ? blocks : kept;
  const open = kept.at(-1);
  const fresh = text.slice(drawn - gone);
  return open ? [...kept.slice(0, -1), ...split(open.text + fresh, open.at)] : split(fresh, drawn);
}

/** Blocks end at a line's end, so that each can stand in an element of its own. */
function split(text: string, at: number): Block[] {
  const blocks: Block[] = [];
  let begin = 0;
  while (text.length - begin > BLOCK) {
    const end = text.indexOf("\n", begin + BLOCK) + 1;
    if (end === 0) break;
    blocks.push({ at: at + begin, text: text.slice(begin, end) });
    begin = end;
  }
  if (begin < text.length) blocks.push({ at: at + begin, text: text.slice(begin) });
  return blocks;
}
