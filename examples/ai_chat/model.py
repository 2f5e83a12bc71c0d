"""A language model that needs no key: messages of the AI SDK in, an async iterator of texts out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

ANSWER = """\
You said “{question}”, and I am a fake model. Each of these words was written into a run by a \
worker in Python, and useChat reads them from the gateway.

Reload the page while I speak: the words so far are there at once, and the rest follows. Open the \
same address in a second window, and both read along. Stop me: the run is canceled, in every \
window. Say “fail”, and I do."""


async def completion(messages: list[dict[str, Any]]) -> AsyncIterator[str]:
    """Answer the last message, always the same, at the speed of a language model."""
    parts = messages[-1].get("parts", [])
    question = "".join(part["text"] for part in parts if part.get("type") == "text")
    words = ANSWER.format(question=question).split(" ")
    for number, word in enumerate(words):
        if question == "fail" and number == 12:
            raise RuntimeError("You told me to fail, so I did.")
        await asyncio.sleep(0.06)
        yield word if number == 0 else f" {word}"
