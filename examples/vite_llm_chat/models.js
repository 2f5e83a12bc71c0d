// Language models as this example uses them: messages in, an async iterator of texts out.

import { setTimeout as pause } from "node:timers/promises";

/** Answer the last message with the model that there is a key for, or with the fake one. */
export function completion(messages) {
  if (process.env.OPENAI_API_KEY) return openaiCompletion(messages);
  if (process.env.ANTHROPIC_API_KEY) return anthropicCompletion(messages);
  return fakeCompletion(messages);
}

/** Say always much the same, at the speed of a language model; fail when told to. */
async function* fakeCompletion(messages) {
  const question = messages.at(-1).content;
  const number = messages.filter(({ role }) => role === "user").length;
  const text =
    `You said: “${question}” That was message ${number} of this chat.\n\n` +
    "I am a fake model. Each of these words was written into a stream by the worker, a few " +
    "letters at a time, and reached your browser through the gateway.\n\n" +
    "Reload the page while I speak: the text so far is there at once, and the rest follows. " +
    "Restart the gateway, and I go on where I was. Say “fail”, and I do.";
  for (let start = 0; start < text.length; start += 4) {
    await pause(30);
    yield text.slice(start, start + 4);
    if (question === "fail" && start > 60) throw new Error("You told me to fail, so I did.");
  }
}

async function* openaiCompletion(messages) {
  const { OpenAI } = await import("openai");
  const model = process.env.OPENAI_MODEL ?? "gpt-4o-mini";
  const chunks = await new OpenAI().chat.completions.create({ model, messages, stream: true });
  for await (const chunk of chunks) {
    const text = chunk.choices[0]?.delta?.content;
    if (text) yield text;
  }
}

async function* anthropicCompletion(messages) {
  const { Anthropic } = await import("@anthropic-ai/sdk");
  const model = process.env.ANTHROPIC_MODEL ?? "claude-haiku-4-5";
  const events = new Anthropic().messages.stream({ model, max_tokens: 1024, messages });
  for await (const event of events) {
    if (event.type === "content_block_delta" && event.delta.type === "text_delta") {
      yield event.delta.text;
    }
  }
}
