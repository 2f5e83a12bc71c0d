"""A backend that answers questions with a language model, and lets browsers read along."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import FileResponse
from models import completion
from pydantic import BaseModel, Field

from runcast import AsyncClient

GATEWAY = os.environ.get("RUNCAST_URL", "http://127.0.0.1:8080")
PAGE = Path(__file__).with_name("index.html")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Use one client for the whole backend. Its key is RUNCAST_SECRET_KEY."""
    async with AsyncClient(GATEWAY) as app.state.runcast:
        yield


app = FastAPI(title="Ask", lifespan=lifespan)


class Question(BaseModel):
    """What a browser sends."""

    text: str = Field(min_length=1, max_length=2000)


class Reading(BaseModel):
    """Where the browser reads the answer, and with what."""

    stream: str
    token: str


@app.get("/")
async def page() -> FileResponse:
    """Give the page."""
    return FileResponse(PAGE)


@app.post("/ask")
async def ask(question: Question, request: Request, background: BackgroundTasks) -> Reading:
    """Trigger a run, answer it behind the scenes, and hand out a token for just this run."""
    client: AsyncClient = request.app.state.runcast
    run = await client.tasks.trigger("answer", {"question": question.text}, tags="chat")
    background.add_task(answer, client, run.id)
    token = await client.create_public_token([f"read:runs:{run.id}"], expires="1h")
    return Reading(stream=f"{GATEWAY}/realtime/v1/streams/{run.id}/llm", token=token)


async def answer(client: AsyncClient, run_id: str) -> None:
    """Carry the run out; a worker in another process would do just the same."""
    async with client.runs.take(run_id) as run:
        texts = run.stream("llm", completion(run.payload["question"]))
        whole = "".join([text async for text in texts])
        await run.close_stream("llm")  # nobody else writes to it: readers need not wait and see
        await run.finish({"answer": whole})
