"""What those see who run the gateway."""

from prometheus_client import Counter

from runcast.web.services import Readiness
from tests.support.gateway import RunningGateway, running_gateway


async def test_a_running_process_is_alive_and_ready(gateway: RunningGateway) -> None:
    alive = await gateway.anybody.get("/healthz")
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
    ready = await gateway.anybody.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)


async def test_a_gateway_that_is_behind_is_alive_but_not_ready(database_url: str) -> None:
    behind = Readiness(False, {"changefeed": "lost"})
    async with running_gateway(database_url, readiness=behind) as gateway:
        assert (await gateway.anybody.get("/healthz")).status_code == 200
        ready = await gateway.anybody.get("/readyz")
        assert ready.status_code == 503
        assert ready.json() == {"ready": False, "detail": {"changefeed": "lost"}}


async def test_metrics_are_text_for_prometheus(gateway: RunningGateway) -> None:
    counter = Counter("runcast_tests", "Tests.", registry=gateway.services.metrics)
    counter.inc(3)
    answer = await gateway.anybody.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "runcast_tests_total 3.0" in answer.text


async def test_head_is_get_without_a_body(gateway: RunningGateway) -> None:
    answer = await gateway.anybody.head("/healthz")
    assert (answer.status_code, answer.content) == (200, b"")
