"""A backend that answers questions with a language model, and lets browsers read along."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import FileResponse
from models import completion
from pydantic import BaseModel, Field
from starlette.datastructures import State

from runcast import AsyncClient

PAGE = Path(__file__).with_name("index.html")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the whole backend; it takes RUNCAST_URL and RUNCAST_SECRET_KEY."""
    async with AsyncClient() as app.state.runcast:
        yield


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    """What a browser sends."""

    text: str = Field(min_length=1, max_length=2000)


class Answer(BaseModel):
    """Where the browser reads the answer, and with what."""

    stream: str
    token: str


@app.get("/")
async def page() -> FileResponse:
    """Give the page."""
    return FileResponse(PAGE)


@app.post("/ask")
async def ask(question: Question, request: Request, background: BackgroundTasks) -> Answer:
    """Make a run, begin to answer behind the scenes, and hand out a token for just this run."""
    runcast: AsyncClient = request.app.state.runcast
    run = await runcast.tasks.trigger("answer", {"question": question.text}, tags="chat")
    background.add_task(answer, runcast, run.id)
    token = await runcast.create_public_token([f"read:runs:{run.id}"], expires="1h")
    return Answer(stream=f"{runcast.base_url}/realtime/v1/streams/{run.id}/llm", token=token)


async def answer(runcast: AsyncClient, run_id: str) -> None:
    """Carry the run out. A worker in another process would do just the same."""
    async with runcast.runs.take(run_id) as run:
        texts = completion(run.payload["question"])
        words = 0
        async for text in run.stream("llm", texts):
            words += len(text.split())
        run.metadata.set("words", words)
