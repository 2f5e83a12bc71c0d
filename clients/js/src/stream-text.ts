// What a part adds to the text of its stream. Pure.

/**
 * A text is text; of the events that language models stream, the text that they carry. Anything
 * else adds nothing.
 */
export function textOf(part: unknown): string {
  if (typeof part === "string") return part;
  if (part === null || typeof part !== "object") return "";
  const { type, delta, choices } = part as { type?: unknown; delta?: unknown; choices?: unknown };
  if (Array.isArray(choices)) return choices.map(choiceText).join("");
  if (type === "content_block_delta") return textIn(delta, "text");
  if (type === "response.output_text.delta" || type === "text-delta") {
    return typeof delta === "string" ? delta : "";
  }
  return "";
}

// Chat completions: {"choices": [{"delta": {"content": …}}]}, or of the older kind {"text": …}.
function choiceText(choice: unknown): string {
  const { delta } = (choice ?? {}) as { delta?: unknown };
  return textIn(delta, "content") || textIn(choice, "text");
}

function textIn(value: unknown, name: string): string {
  const text = (value as Record<string, unknown> | null | undefined)?.[name];
  return typeof text === "string" ? text : "";
}
