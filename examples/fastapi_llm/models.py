"""Language models as this example uses them: a question in, an async iterator of texts out."""

import asyncio
import os
from collections.abc import AsyncIterator

FAKE_ANSWER = """\
I am a fake model, so I say this whatever you ask. Each of these words was written into a stream \
by the backend, a few letters at a time, and reached your browser through the gateway.

Reload the page while I speak: the text so far is there at once, and the rest follows. Open it in \
a second window, and both read the same. Restart the gateway, and I go on where I was."""


def completion(question: str) -> AsyncIterator[str]:
    """Answer a question with the model that there is a key for, or with the fake one."""
    if os.environ.get("OPENAI_API_KEY"):
        return openai_completion(question)
    if os.environ.get("ANTHROPIC_API_KEY"):
        return anthropic_completion(question)
    return fake_completion()


async def fake_completion() -> AsyncIterator[str]:
    """Say always the same, at the speed of a language model."""
    for start in range(0, len(FAKE_ANSWER), 4):
        await asyncio.sleep(0.05)
        yield FAKE_ANSWER[start : start + 4]


async def openai_completion(question: str) -> AsyncIterator[str]:
    """Ask OpenAI."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI() as openai:
        chunks = await openai.chat.completions.create(
            model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
            messages=[{"role": "user", "content": question}],
            stream=True,
        )
        async for chunk in chunks:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield text


async def anthropic_completion(question: str) -> AsyncIterator[str]:
    """Ask Anthropic."""
    from anthropic import AsyncAnthropic

    async with (
        AsyncAnthropic() as anthropic,
        anthropic.messages.stream(
            model=os.environ.get("ANTHROPIC_MODEL", "claude-haiku-4-5"),
            max_tokens=1024,
            messages=[{"role": "user", "content": question}],
        ) as answer,
    ):
        async for text in answer.text_stream:
            yield text
