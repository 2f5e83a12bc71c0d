// What a chunk adds to the text of its stream. Pure.

// A JSON string is text; so is a line that is no JSON, such as one of a log. Of the events that
// language models stream, the text they carry: "" where they carry none. null: not text.
export function textOf(line) {
  let value;
  try {
    value = JSON.parse(line);
  } catch {
    return `${line}\n`;
  }
  if (typeof value === "string") return value;
  if (value === null || typeof value !== "object") return null;
  if (Array.isArray(value.choices)) return openAiText(value.choices);
  return typeof value.type === "string" ? eventText(value) : null;
}

// Chat completions: {"choices": [{"delta": {"content": …}}]}; the last ones have no choice.
function openAiText(choices) {
  const pieces = choices.map((choice) => choice?.delta?.content ?? choice?.text ?? "");
  return pieces.every((piece) => typeof piece === "string") ? pieces.join("") : null;
}

const SILENT = new Set([
  "message_start",
  "content_block_start",
  "content_block_delta",
  "content_block_stop",
  "message_delta",
  "message_stop",
  "ping",
]);

// Events with a type: Anthropic's messages, OpenAI's responses, and the plain "text-delta".
function eventText({ type, delta }) {
  if (type === "content_block_delta" && typeof delta?.text === "string") return delta.text;
  if (type === "response.output_text.delta" && typeof delta === "string") return delta;
  if (type === "text-delta" && typeof delta === "string") return delta;
  return SILENT.has(type) || type.startsWith("response.") ? "" : null;
}
