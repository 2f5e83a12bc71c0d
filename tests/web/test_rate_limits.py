"""Rate limits: who is counted, what answers say of it, and what is kept for it."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from runcast.auth.grant import Grant
from runcast.core.bucket import Allowance, Draw
from runcast.core.limits import Limits
from runcast.core.rate import Rate
from runcast.errors import BackendError
from runcast.ports import RateLimiter
from runcast.postgres.database import Database
from runcast.postgres.rate_limiter import PostgresRateLimiter
from runcast.testing import ManualClock, MemoryRateLimiter
from runcast.web.operation import Access, Operation
from runcast.web.rate_limits import RateLimits
from runcast.web.routes import OPERATIONS
from tests.support.gateway import RunningGateway, Tenant, address, bearing, janitor, running_gateway
from tests.support.gateway_app import running_app

RUNS = "/api/v1/runs"
# So slow that nothing comes back while a test runs.
TOKEN_RATE = Rate(refill=1, seconds=1000.0, burst=3)
KEY_RATE = Rate(refill=1, seconds=500.0, burst=5)
LIMITS = Limits(key_cache_seconds=0.0, public_token_rate=TOKEN_RATE, secret_key_rate=KEY_RATE)
HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[RunningGateway]:
    """A gateway that soon has enough of anybody."""
    async with running_gateway(database_url, limits=LIMITS) as running:
        yield running


def told(answer: httpx.Response) -> tuple[int, int]:
    """The limit and what remains of it, from an answer that says all that it should."""
    limit, remaining, _ = (int(answer.headers[name]) for name in HEADERS)
    return limit, remaining


def silent(answer: httpx.Response) -> bool:
    return not any(name in answer.headers for name in HEADERS)


async def exhaust(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Ask until a request is refused, and give the refusal."""
    for _ in range(10):
        answer = await client.get(RUNS, headers=headers)
        if answer.status_code == 429:
            return answer
    raise AssertionError("nothing was refused")


class TestAnswers:
    async def test_each_says_what_is_left_and_errors_do_too(self, tenant: Tenant) -> None:
        client = tenant.client
        assert told(await client.get(RUNS)) == (5, 4)
        assert told(await client.head(RUNS)) == (5, 3)
        missing = await client.get("/api/v3/runs/run_no")
        assert (missing.status_code, told(missing)) == (404, (5, 2))
        wrong = await client.post("/api/v1/tasks/t/trigger", content="{")
        assert (wrong.status_code, told(wrong)) == (400, (5, 1))
        assert told(await client.get(RUNS, params={"page[nothing]": "1"})) == (5, 0)

    async def test_a_refusal_is_a_problem_that_says_when_to_come_again(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        before = time.time() * 1000  # noqa: TID251 - as a client would
        refused = await exhaust(tenant.client)
        assert refused.headers["content-type"] == "application/problem+json"
        body = refused.json()
        assert (body["code"], body["status"], body["title"]) == (
            "rate_limited",
            429,
            "Too Many Requests",
        )
        assert body["error"] == body["detail"]
        told_seconds = re.findall(r"allowed in (\d+) s", body["error"])
        assert told_seconds == [refused.headers["retry-after"]]
        passed = time.time() - before / 1000  # noqa: TID251
        assert 499 - passed <= int(told_seconds[0]) <= 500
        assert told(refused) == (5, 0)
        # Milliseconds: it takes 500 seconds.
        assert 490_000 < int(refused.headers["x-ratelimit-reset"]) - before < 510_000
        exposed = refused.headers["access-control-expose-headers"]
        assert all(name in exposed for name in HEADERS)
        assert refused.headers["access-control-allow-origin"] == "*"
        assert gateway.services.rate_limits.refused == {"secret_key": 1}

    async def test_a_refusal_does_nothing_and_is_not_charged(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        first = await exhaust(tenant.client)
        for _ in range(3):
            again = await tenant.client.post("/api/v1/tasks/t/trigger", json={})
            assert again.status_code == 429
            resets = (int(each.headers["x-ratelimit-reset"]) for each in (first, again))
            assert abs(next(resets) - next(resets)) <= 1
        await let_pass(gateway, 501)
        assert (await tenant.client.get(RUNS)).json()["data"] == []

    async def test_strangers_are_told_what_they_would_have_and_leave_no_trace(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        wrong = [{}, *(bearing(f"tr_dev_{n:024}") for n in range(3)), bearing("a.b.c")]
        expired = tenant.token("read:runs", now=1_600_000_000.0, expires_at=1_600_000_600.0)
        for headers in [*wrong, bearing(expired)]:
            answer = await gateway.anybody.get(RUNS, headers=headers)
            assert (answer.status_code, told(answer)) == (401, (3, 3))
        assert not gateway.services.rate_limits._accounts
        assert await rows(gateway) == 0

    async def test_no_token_is_written_down(self, gateway: RunningGateway, tenant: Tenant) -> None:
        await tenant.client.get(RUNS)
        [[bucket]] = await database(gateway).fetch("SELECT bucket FROM @schema@.rate_limits")
        assert len(bucket) == 32
        assert tenant.key.encode() not in bucket
        assert tenant.key not in repr(list(gateway.services.rate_limits._accounts))


class TestWhoIsCounted:
    async def test_each_token_and_each_key_has_its_own(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        one, two = tenant.bearing("read:runs"), tenant.bearing("read:runs", token_id="other")
        assert (await exhaust(gateway.anybody, headers=one)).status_code == 429
        assert gateway.services.rate_limits.refused == {"public_token": 1}
        assert told(await gateway.anybody.get(RUNS, headers=two)) == (3, 2)
        assert told(await tenant.client.get(RUNS)) == (5, 4)
        other = await gateway.tenant("other")
        assert told(await other.client.get(RUNS)) == (5, 4)

    @pytest.mark.parametrize(
        "operation",
        [each for each in OPERATIONS if each.path.startswith("/api/") and not each.is_rate_limited],
        ids=lambda each: each.name,
    )
    async def test_what_is_exempt(self, tenant: Tenant, operation: Operation) -> None:
        await exhaust(tenant.client)
        answer = await tenant.client.request(operation.method, address(operation.path))
        assert answer.status_code != 429
        assert silent(answer)

    def test_only_these_are_exempt(self) -> None:
        exempt = {each.path for each in OPERATIONS if not each.is_rate_limited}
        assert {path for path in exempt if path.startswith("/api/")} == {
            "/api/v1/auth/jwt/claims",
            "/api/v1/packets/{name}",
            "/api/v2/packets/{name}",
            "/api/v1/runs/{run}/packets/{packet}",
            "/api/v1/objects/{environment}/{name}",
            "/api/v1/waitpoints/tokens/{token}/callback/{hash}",
        }

    async def test_all_else_is_counted(self, gateway: RunningGateway) -> None:
        for operation in OPERATIONS:
            answer = await gateway.anybody.request(operation.method, address(operation.path))
            assert silent(answer) == (not operation.is_rate_limited), operation.path
            if operation.is_rate_limited:
                assert operation.access is not Access.OPEN

    async def test_feeds_streams_and_preflights_are_not(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        await exhaust(tenant.client)
        realtime = await tenant.client.get("/realtime/v1/runs/run_no")
        assert (realtime.status_code, silent(realtime)) == (404, True)
        stream = await tenant.client.put("/realtime/v1/streams/run_no/self/llm")
        assert (stream.status_code, silent(stream)) == (404, True)
        preflight = await tenant.client.options(
            RUNS, headers={"access-control-request-method": "GET"}
        )
        assert (preflight.status_code, silent(preflight)) == (204, True)

    async def test_nobody_is_where_there_is_no_limit(self, database_url: str) -> None:
        limits = replace(LIMITS, secret_key_rate=None)
        async with running_gateway(database_url, limits=limits) as gateway:
            tenant = await gateway.tenant("dev")
            for _ in range(10):
                answer = await tenant.client.get(RUNS)
                assert (answer.status_code, silent(answer)) == (200, True)
            assert (await exhaust(gateway.anybody, headers=tenant.bearing("read:runs"))).is_error
            assert await rows(gateway) == 1


class TestTime:
    async def test_who_waits_until_the_reset_is_let_through(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        refused = await exhaust(tenant.client)
        wait = int(refused.headers["x-ratelimit-reset"]) / 1000 - gateway.clock.now()
        await let_pass(gateway, wait)
        assert (await tenant.client.get(RUNS)).status_code == 200
        assert (await tenant.client.get(RUNS)).status_code == 429
        await let_pass(gateway, 1e6)
        assert told(await tenant.client.get(RUNS)) == (5, 4)

    async def test_what_is_over_is_forgotten_by_the_database(
        self, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        await exhaust(tenant.client)
        await exhaust(gateway.anybody, headers=tenant.bearing("read:runs"))
        assert await rows(gateway) == 2
        await clean(gateway)
        assert await rows(gateway) == 2
        await let_pass(gateway, 2501)  # the key's five, not the token's three
        await clean(gateway)
        assert await rows(gateway) == 1


async def test_metrics_tell_what_was_refused(database_url: str) -> None:
    async with (
        running_app(database_url, secret_key_rate=KEY_RATE) as app,
        httpx.AsyncClient(base_url=app.url, trust_env=False) as client,
    ):
        await exhaust(client, headers=app.bearer)
        metrics = (await client.get("/metrics")).text
    assert 'runcast_rate_limited_total{kind="secret_key"} 1.0' in metrics
    assert "runcast_rate_limiter_failures_total 0.0" in metrics


class TestManyGateways:
    async def test_they_share_what_a_token_may_do(
        self, database_url: str, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        async with running_gateway(database_url, limits=LIMITS) as second:
            headers = tenant.bearing("read:runs")
            gateways = [gateway, second] * 2
            answers = [await each.anybody.get(RUNS, headers=headers) for each in gateways]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [told(answer) for answer in answers] == [(3, 2), (3, 1), (3, 0), (3, 0)]

    async def test_crowds_at_two_of_them_pass_as_many_as_the_limit_says(
        self, database_url: str, gateway: RunningGateway, tenant: Tenant
    ) -> None:
        rate = Rate(refill=1, seconds=1000.0, burst=100)  # each draws two at once
        limiter = PostgresRateLimiter(database(gateway))
        two = [spending(limiter, ManualClock(), rate) for _ in range(2)]
        allowances = await asyncio.gather(*(spend(two[n % 2]) for n in range(150)))
        passed = sum(each.allowed for each in allowances)
        assert 100 - 2 * rate.share <= passed <= 100


def spending(
    limiter: RateLimiter, clock: ManualClock, rate: Rate, max_accounts: int = 100
) -> RateLimits:
    limits = Limits(secret_key_rate=rate)
    return RateLimits(limiter, clock=clock, limits=limits, max_accounts=max_accounts)


async def spend(limits: RateLimits, name: str = "aa") -> Allowance:
    allowance = await limits.spend(Grant.for_secret_key("env_1", name))
    assert allowance is not None
    return allowance


class CountingLimiter(MemoryRateLimiter):
    """Counts the draws, can hold them up, and can fail."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.draws = 0
        self.fails = False
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def draw(self, bucket: bytes, wanted: int, rate: Rate) -> Draw:
        self.draws += 1
        self.asked.set()
        await self.open.wait()
        if self.fails:
            raise BackendError("The database cannot be reached; try again.")
        return await super().draw(bucket, wanted, rate)


class TestAsking:
    async def test_most_requests_and_all_refusals_ask_for_nothing(self) -> None:
        clock = ManualClock()
        limiter = CountingLimiter(clock)
        limits = spending(limiter, clock, Rate(1, 1.0, 500))
        for _ in range(500):
            assert (await spend(limits)).allowed
        assert limiter.draws == 50
        for _ in range(100):
            assert not (await spend(limits)).allowed
        assert limiter.draws == 50
        assert limits.refused == {"secret_key": 100}

    async def test_those_who_need_a_draw_at_once_share_one_and_may_leave_it(self) -> None:
        clock = ManualClock()
        limiter = CountingLimiter(clock)
        limits = spending(limiter, clock, Rate(1, 1.0, 500))
        limiter.open.clear()
        asking = [asyncio.create_task(spend(limits)) for _ in range(8)]
        await limiter.asked.wait()
        asking[0].cancel()
        limiter.open.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert all(isinstance(answer, Allowance) and answer.allowed for answer in answers[1:])
        assert limiter.draws == 1

    async def test_only_so_many_are_remembered(self) -> None:
        clock = ManualClock()
        limits = spending(CountingLimiter(clock), clock, Rate(1, 1.0, 1), max_accounts=3)
        for n in range(20):
            assert (await spend(limits, f"{n:02}")).allowed
        assert list(limits._accounts) == ["17", "18", "19"]
        # Forgotten here, known there.
        assert not (await spend(limits, "00")).allowed

    async def test_while_nobody_can_be_asked_the_gateway_counts_alone(self) -> None:
        clock = ManualClock()
        limiter = CountingLimiter(clock)
        limiter.fails = True
        limits = spending(limiter, clock, Rate(1, 1.0, 3))
        for _ in range(3):
            assert (await spend(limits)).allowed
        assert not (await spend(limits)).allowed
        # It does not ask again at once, whoever it is for.
        assert (await spend(limits, "bb")).allowed
        assert (limiter.draws, limits.failures) == (1, 1)
        limiter.fails = False
        clock.advance(1.5)
        assert (await spend(limits)).allowed
        assert limiter.draws == 2

    async def test_a_limiter_that_does_not_answer_holds_nobody_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("runcast.web.rate_limits._PATIENCE_SECONDS", 0.01)
        clock = ManualClock()
        limiter = CountingLimiter(clock)
        limiter.open.clear()
        limits = spending(limiter, clock, Rate(1, 1.0, 3))
        assert (await spend(limits)).allowed
        assert limits.failures == 1


def database(gateway: RunningGateway) -> Database:
    found: Database = gateway.keys._database
    return found


async def rows(gateway: RunningGateway) -> int:
    """How many buckets the database knows."""
    found = await database(gateway).fetch("SELECT count(*) FROM @schema@.rate_limits")
    count: int = found[0][0]
    return count


async def let_pass(gateway: RunningGateway, seconds: float) -> None:
    """Let time pass for the gateway and for its database."""
    gateway.clock.offset += seconds
    await database(gateway).fetch(
        "UPDATE @schema@.rate_limits SET full_at = full_at - make_interval(secs => $1)",
        float(seconds),
    )


async def clean(gateway: RunningGateway) -> None:
    await janitor(database(gateway)).clean()
