"""The usual way in Python: sse-starlette under uvicorn, a queue and a task for each client."""

import asyncio
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queues: set[asyncio.Queue[ServerSentEvent]] = set()
sent = 0


async def events(request: Request) -> EventSourceResponse:
    """Subscribe."""

    async def following() -> AsyncIterator[ServerSentEvent]:
        queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue(1000)
        queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return EventSourceResponse(following(), ping=300)


async def publish(request: Request) -> Response:
    """Send the body to everybody."""
    global sent
    sent += 1
    event = ServerSentEvent((await request.body()).decode(), event="run", id=str(sent))
    for queue in queues:
        queue.put_nowait(event)
    return Response(status_code=204)


app = Starlette(
    routes=[Route("/events", events), Route("/publish", publish, methods=["POST"])],
)


class Server(uvicorn.Server):
    """Says its port once it listens."""

    async def startup(self, sockets: object = None) -> None:
        """Start, then tell."""
        await super().startup()
        print(f"listening {self.servers[0].sockets[0].getsockname()[1]}", flush=True)


if __name__ == "__main__":
    Server(
        uvicorn.Config(
            app, port=0, loop="uvloop", access_log=False, log_level="warning", backlog=4096
        )
    ).run()
