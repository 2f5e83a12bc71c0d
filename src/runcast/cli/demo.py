"""
Demo runs, made by a plain client of the public REST API as any worker could be.

Four stories are told again and again at human speed, so that there is always something to see: a
video that is rendered in steps, a file import that spreads over child runs, a summary that grows
in the metadata of its run, and a language model's answer that is streamed.
Nothing deletes runs: it is the pace, a new run every few seconds, that bounds their number.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx

from runcast.cli.demo_answers import ANSWERS, tokens_of

logger = logging.getLogger(__name__)

TAG = "demo"
_TASKS = ("render-video", "import-csv", "import-csv-part", "summarize", "answer-question")
_USERS = ("user:7", "user:42", "user:99")
_UNFINISHED = "QUEUED,DEQUEUED,EXECUTING,WAITING,REATTEMPTING,DELAYED"
_SUMMARY = "Runs change in the database, and everyone who may see them sees them change"
_TIMEOUT_SECONDS = 10.0
_BACK_OFF_SECONDS = (1.0, 30.0)
_RETRIED = frozenset({429, 500, 502, 503, 504})
_STEPS = ("decoding", "scaling", "encoding", "uploading")


async def produce_demo_runs(url: str, secret_key: str, *, pace: float = 1.0) -> None:
    """
    Make demo runs until cancelled; waits and goes on where the gateway does not answer.

    Args:
        url: Of the gateway.
        secret_key: Of the environment that gets the runs.
        pace: How long a step takes, as a factor: 1 suits the eye, tests want less.
    """
    headers = {"authorization": f"Bearer {secret_key}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=False
    ) as http:
        worker = DemoWorker(http, pace)
        await worker.play(worker.cancel_leftovers)
        async with asyncio.TaskGroup() as group:
            for story in worker.stories:
                group.create_task(worker.repeat(story))


class DemoWorker:
    """Plays the stories: each triggers a run and takes it through its life."""

    def __init__(self, http: httpx.AsyncClient, pace: float) -> None:
        self._http = http
        self._pace = pace
        self._random = random.Random()
        self.stories = (self.render_video, self.import_file, self.summarize, self.answer_question)

    async def repeat(self, story: Callable[[], Awaitable[None]]) -> None:
        """Play a story again and again, also when one was refused."""
        while True:
            await self.play(story)
            await self._pause(6)

    async def play(self, story: Callable[[], Awaitable[None]]) -> None:
        """Play a story once, and leave it when refused, as for a run cancelled by hand."""
        try:
            await story()
        except httpx.HTTPStatusError as error:
            logger.warning("a demo run stopped: %s", _reason(error))

    async def cancel_leftovers(self) -> None:
        """Cancel what an earlier demo left unfinished: nobody else will ever go on with it."""
        filters = {
            "filter[tag]": TAG,
            "filter[taskIdentifier]": ",".join(_TASKS),
            "filter[status]": _UNFINISHED,
            "page[size]": "100",
        }
        found = await self._get("/api/v1/runs", filters)
        for run in found["data"]:
            await self._send("POST", f"/api/v2/runs/{run['id']}/cancel", {})

    async def render_video(self) -> None:
        """A run with steps and a progress in per cent; the first attempt may fail."""
        name = f"holiday-{self._random.randint(1, 99)}.mp4"
        run = await self._trigger("render-video", {"file": name, "height": 1080}, progress=0)
        await self._pause(1.5)
        await self._change(run, status="EXECUTING", attemptCount=1)
        if self._random.random() < 0.25:
            await self._set(run, step="decoding", progress=15)
            await self._pause(1.5)
            await self._change(run, status="REATTEMPTING")
            await self._pause(2)
            await self._change(run, status="EXECUTING", attemptCount=2)
        for progress in range(5, 100, 5):
            await self._set(run, step=_STEPS[progress // 25], progress=progress)
            await self._pause(0.5)
        await self._set(run, step="done", progress=100)
        await self._complete(run, {"url": f"https://videos.example/{run}/{name}"}, cost=0.4)

    async def import_file(self) -> None:
        """A run that hands its rows to a batch of child runs; one of them fails now and then."""
        parts, rows = 3, self._random.randint(3, 9) * 100
        run = await self._trigger("import-csv", {"rows": rows}, imported=0, failed=0)
        await self._pause(1)
        await self._change(run, status="EXECUTING", attemptCount=1)
        children = await self._batch(run, parts, rows // parts)
        await self._change(run, status="WAITING")
        results = await asyncio.gather(
            *(self._import_part(run, child, rows // parts) for child in children)
        )
        await self._change(run, status="EXECUTING")
        await self._pause(1)
        if all(results):
            await self._complete(run, {"rows": rows}, cost=0.1)
        else:
            await self._fail(run, "A part of the file could not be imported.")

    async def summarize(self) -> None:
        """A delayed run whose text grows word by word, as a language model's would."""
        words = _SUMMARY.split(" ")
        run = await self._trigger(
            "summarize", {"document": "report.pdf"}, delay="2s", model="demo-1", text="", tokens=0
        )
        await self._pause(2.5)
        await self._change(run, status="QUEUED")
        await self._pause(0.7)
        await self._change(run, status="EXECUTING", attemptCount=1)
        for count in range(1, len(words) + 1):
            await self._set(run, text=" ".join(words[:count]), tokens=count)
            await self._pause(0.4)
            if count == 6 and self._random.random() < 0.15:
                await self._fail(run, "The model answered with nonsense.")
                return
        await self._complete(run, {"summary": " ".join(words)}, cost=0.02)

    async def answer_question(self) -> None:
        """A run with two streams: the answer of a language model, token by token, and its log."""
        question = self._random.choice(list(ANSWERS))
        answer = ANSWERS[question]
        tokens = tokens_of(answer)
        run = await self._trigger("answer-question", {"question": question}, model="demo-1")
        await self._pause(0.8)
        await self._change(run, status="EXECUTING", attemptCount=1)
        log = [
            {"level": "info", "message": "prompt built", "tokens": len(question.split())},
            {"level": "info", "message": "model chosen", "model": "demo-1"},
            {"level": "debug", "message": "first token"},
            {"level": "debug", "message": "half of it", "tokens": len(tokens) // 2},
            {"level": "info", "message": "answer complete", "tokens": len(tokens)},
        ]
        token_seconds = 0.06
        await asyncio.gather(
            self._stream(run, "llm", tokens, token_seconds),
            self._stream(run, "log", log, token_seconds * len(tokens) / len(log)),
        )
        await self._set(run, tokens=len(tokens))
        await self._complete(run, {"answer": answer}, cost=0.03)

    async def _import_part(self, parent: str, child: str, rows: int) -> bool:
        await self._pause(self._random.uniform(0.2, 2))
        await self._change(child, status="EXECUTING", attemptCount=1)
        for progress in range(0, 100, 20):
            await self._set(child, progress=progress)
            await self._pause(self._random.uniform(0.4, 1.2))
        fine = self._random.random() > 0.1
        counter = "imported" if fine else "failed"
        operations = [{"type": "increment", "key": counter, "value": rows}]
        if fine:
            await self._complete(child, {"rows": rows}, cost=0.01)
        else:
            await self._fail(child, "A row has no date.")
        await self._update_metadata(parent, operations)
        return fine

    async def _trigger(
        self, task: str, payload: object, *, delay: str | None = None, **metadata: object
    ) -> str:
        options: dict[str, Any] = {
            "tags": [TAG, self._random.choice(_USERS)],
            "metadata": metadata,
        }
        if delay:
            options["delay"] = delay
        body = {"payload": payload, "options": options}
        answer = await self._send("POST", f"/api/v1/tasks/{task}/trigger", body)
        return str(answer["id"])

    async def _batch(self, parent: str, parts: int, rows: int) -> list[str]:
        items = [
            {
                "task": "import-csv-part",
                "payload": {"part": part, "rows": rows},
                "options": {"tags": [TAG]},
            }
            for part in range(1, parts + 1)
        ]
        body = {"items": items, "parentRunId": parent}
        answer = await self._send("POST", "/api/v2/tasks/batch", body)
        batch = await self._get(f"/api/v2/batches/{answer['id']}", {})
        return list(batch["runs"])

    async def _complete(self, run: str, output: object, *, cost: float) -> None:
        duration = self._random.randint(2000, 9000)
        await self._change(
            run, status="COMPLETED", output=output, costInCents=cost, usageDurationMs=duration
        )

    async def _fail(self, run: str, message: str) -> None:
        error = {
            "type": "BUILT_IN_ERROR",
            "name": "DemoError",
            "message": message,
            "stackTrace": "",
        }
        await self._change(run, status="FAILED", error=error)

    async def _change(self, run: str, **fields: object) -> None:
        await self._send("PATCH", f"/api/v1/runs/{run}", fields)

    async def _set(self, run: str, **metadata: object) -> None:
        operations = [
            {"type": "set", "key": key, "value": value} for key, value in metadata.items()
        ]
        await self._update_metadata(run, operations)

    async def _update_metadata(self, run: str, operations: list[dict[str, Any]]) -> None:
        await self._send("PUT", f"/api/v1/runs/{run}/metadata", {"operations": operations})

    async def _get(self, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        return await self._request(self._http.build_request("GET", path, params=parameters))

    async def _send(self, method: str, path: str, body: object) -> dict[str, Any]:
        return await self._request(self._http.build_request(method, path, json=body))

    async def _request(self, request: httpx.Request) -> dict[str, Any]:
        response = await self._answered(lambda: self._http.send(request))
        answer: dict[str, Any] = response.json()
        return answer

    async def _stream(
        self, run: str, key: str, chunks: Sequence[object], seconds_each: float
    ) -> None:
        """Write a whole stream at human speed, over as many connections as that takes."""
        path = f"/realtime/v1/streams/{run}/self/{key}"
        writer = {"x-client-id": f"demo-{run}"}

        async def lines(first: int) -> AsyncIterator[bytes]:
            for chunk in chunks[first:]:
                await self._pause(seconds_each)
                yield json.dumps(chunk).encode() + b"\n"

        async def send_the_rest() -> httpx.Response:
            probe = await self._http.head(path, headers=writer)
            probe.raise_for_status()
            first = int(probe.headers["x-last-chunk-index"]) + 1
            headers = writer | {"x-resume-from-chunk": str(first)}
            return await self._http.post(path, content=lines(first), headers=headers)

        await self._answered(send_the_rest)
        await self._send("POST", f"{path}/close", {})

    async def _answered(self, send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Send until it is answered, waiting longer each time: a run is not left half done."""
        delay, longest = _BACK_OFF_SECONDS
        while True:
            try:
                response = await send()
                response.raise_for_status()
                return response
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in _RETRIED:
                    raise
                logger.warning("the demo waits: %s", _reason(error))
            except httpx.TransportError as error:
                logger.warning("the demo waits for the gateway: %s", _reason(error))
            await asyncio.sleep(delay * self._random.uniform(0.5, 1.0) * self._pace)
            delay = min(2 * delay, longest)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self._pace * self._random.uniform(0.8, 1.2))


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        request = error.request
        said = error.response.text[:200]
        return f"{request.method} {request.url.path} → {error.response.status_code} {said}"
    return str(error) or type(error).__name__
