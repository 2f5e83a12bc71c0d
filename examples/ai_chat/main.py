"""A chat backend: each message is a run, whose worker writes what `useChat` reads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import fastapi
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.staticfiles import StaticFiles
from model import completion
from pydantic import BaseModel, Field

from runcast import AsyncClient
from runcast.client.errors import IllegalTransition, StreamClosed

PAGE = Path(__file__).with_name("dist")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Use one client for the whole backend: RUNCAST_URL and RUNCAST_SECRET_KEY."""
    async with AsyncClient() as app.state.runcast:
        yield


app = FastAPI(title="Chat", lifespan=lifespan)

ChatId = Annotated[str, fastapi.Path(pattern=r"^[\w-]{1,64}$")]


class Answering(BaseModel):
    """The run that answers, and what the browser reads it with."""

    runId: str
    token: str


class Chat(BaseModel):
    """A chat as it was when its last question was asked; the answer to that is in the run."""

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=100)
    answering: Answering | None = None


@app.post("/api/chats/{chat}")
async def ask(chat: ChatId, said: Chat, request: Request, background: BackgroundTasks) -> Answering:
    """Trigger a run for the last message, and answer it behind the scenes."""
    client: AsyncClient = request.app.state.runcast
    run = await client.tasks.trigger("chat", {"messages": said.messages}, tags=f"chat:{chat}")
    background.add_task(answer, client, run.id)
    return Answering(runId=run.id, token=run.public_access_token)


@app.get("/api/chats/{chat}")
async def read(chat: ChatId, request: Request) -> Chat | None:
    """Give what was said in a chat so far, if anything: it is in its newest run."""
    client: AsyncClient = request.app.state.runcast
    page = await client.runs.list(tag=f"chat:{chat}", page_size=1).page()
    if not page.runs:
        return None
    run = await client.runs.retrieve(page.runs[0].id)
    token = await client.create_public_token([f"read:runs:{run.id}"], expires="1h")
    messages = run.payload["messages"]
    return Chat(messages=messages, answering=Answering(runId=run.id, token=token))


@app.delete("/api/runs/{run}")
async def cancel(run: str, request: Request) -> None:
    """Cancel a run: nothing can be written into it any more."""
    client: AsyncClient = request.app.state.runcast
    await client.runs.cancel(run)


async def answer(client: AsyncClient, run_id: str) -> None:
    """Carry the run out; a worker in another process would do just the same."""
    try:
        async with client.runs.take(run_id) as run:
            await run.pipe("ui", chunks(run.id, completion(run.payload["messages"])))
    except (StreamClosed, IllegalTransition):
        pass  # it was canceled


async def chunks(message_id: str, texts: AsyncIterator[str]) -> AsyncIterator[dict[str, str]]:
    """Say what a model says in the words of the AI SDK, its UI message chunks."""
    yield {"type": "start", "messageId": message_id}
    yield {"type": "text-start", "id": "text"}
    async for text in texts:
        yield {"type": "text-delta", "id": "text", "delta": text}
    yield {"type": "text-end", "id": "text"}
    yield {"type": "finish"}


app.mount("/", StaticFiles(directory=PAGE, html=True))
