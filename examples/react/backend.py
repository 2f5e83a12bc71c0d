import asyncio

from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import PlainTextResponse

from runcast import AsyncClient

app = FastAPI()
runcast = AsyncClient()
user = "user:42"  # whoever your sessions say it is


@app.post("/api/stories")
async def start(background: BackgroundTasks):
    run = await runcast.tasks.trigger("story", {"prompt": "Tell me a story."}, tags=user)
    background.add_task(tell, run.id)
    return {"run": run.id}


@app.get("/api/token", response_class=PlainTextResponse)
async def token():
    return await runcast.create_public_token([f"read:tags:{user}"], expires="15m")


async def tell(run_id):  # a worker in another process would do the same
    async with runcast.runs.take(run_id) as run:
        await run.pipe("llm", model(run.payload["prompt"]))


async def model(prompt):  # stands for the stream of your model
    for word in "Once upon a time a run told a story, word by word, to whoever listened.".split():
        await asyncio.sleep(0.1)
        yield word + " "
