"""For those who run the gateway: is it alive, should it get requests, what does it measure."""

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import Response

from runcast.web.metrics import PROCESS
from runcast.web.operation import Access, Answer, Call, Operation
from runcast.web.responses import json_response

_NO_STORE = {"cache-control": "no-store"}


class Alive(BaseModel):
    """The process serves requests."""

    status: str


class ReadinessReport(BaseModel):
    """Whether this gateway should get requests, and why."""

    ready: bool
    detail: dict[str, Any]


async def healthz(call: Call) -> Response:
    """Tell that the process is alive; looks at nothing else."""
    return json_response({"status": "ok"}, headers=_NO_STORE)


async def readyz(call: Call) -> Response:
    """Tell whether to send requests here."""
    readiness = call.services.readiness()
    body = {"ready": readiness.ready, "detail": dict(readiness.detail)}
    return json_response(body, 200 if readiness.ready else 503, _NO_STORE)


async def metrics(call: Call) -> Response:
    """Give all measurements in the text format of Prometheus."""
    services = call.services
    await PROCESS.look()
    registry = services.metrics if services.workers is None else await services.workers.gather()
    return Response(
        generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST, **_NO_STORE}
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/healthz",
        name="healthz",
        summary="Is the process alive?",
        handler=healthz,
        access=Access.OPEN,
        tag="Operations",
        answers={200: Answer("It is.", Alive)},
    ),
    Operation(
        method="GET",
        path="/readyz",
        name="readyz",
        summary="Should this gateway get requests?",
        handler=readyz,
        access=Access.OPEN,
        tag="Operations",
        answers={
            200: Answer("It should.", ReadinessReport),
            503: Answer("Not now: it is starting, draining, or behind.", ReadinessReport),
        },
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Measurements in the text format of Prometheus",
        handler=metrics,
        access=Access.OPEN,
        tag="Operations",
        answers={200: Answer("All measurements.", media_type="text/plain")},
    ),
)
