"""Run feeds in the Electric shape protocol, over real HTTP: what official clients rely on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.support.event_feed import following
from tests.support.gateway_app import PATIENCE_SECONDS, GatewayApp, running_app, until
from tests.support.postgres import RestartablePostgres

ALL = "/realtime/v1/runs"
MODERN = {
    "trigger-version": "4.8.3",
    "x-trigger-api-version": "2025-07-16",
    "x-trigger-electric-version": "1.0.0-beta.1",
}
OLD = {"trigger-version": "3.3.17", "x-trigger-electric-version": "1.0.0-beta.1"}
UP_TO_DATE = {"headers": {"control": "up-to-date"}}
SHORT = 0.25


def one(run_id: str) -> str:
    return f"{ALL}/{run_id}"


@dataclass
class Shape:
    """A subscription as the Electric client keeps it: it echoes what the last answer said."""

    client: httpx.AsyncClient
    path: str
    headers: Mapping[str, str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    answer: httpx.Response = field(default_factory=lambda: httpx.Response(0))
    echo: dict[str, str] = field(default_factory=lambda: {"offset": "-1"})
    is_up_to_date: bool = False

    async def ask(self, **changes: str | None) -> list[dict[str, Any]]:
        """The next request, with some parameters changed or (None) left out; gives the runs."""
        asked: dict[str, str | None] = dict(self.echo)
        if self.is_up_to_date:
            asked = {"cursor": ""} | asked | {"live": "true"}
        asked |= changes
        query = {name: value for name, value in sorted(asked.items()) if value is not None}
        path, _, fixed = self.path.partition("?")
        fixed_query = dict(httpx.QueryParams(fixed))
        self.answer = await self.client.get(path, params=fixed_query | query, headers=self.headers)
        return self._take(self.answer, live="live" in query)

    async def begin(self) -> list[dict[str, Any]]:
        """Ask until up to date."""
        found = await self.ask()
        while not self.is_up_to_date:
            found += await self.ask()
        return found

    @asynccontextmanager
    async def asking(self, app: GatewayApp) -> AsyncIterator["asyncio.Task[list[dict[str, Any]]]"]:
        """A poll that waits at the gateway for as long as nothing happens."""
        task = asyncio.create_task(self.ask())
        await app.subscribed()
        assert not task.done()
        try:
            yield task
            async with asyncio.timeout(PATIENCE_SECONDS):
                await task
        finally:
            task.cancel()

    def _take(self, answer: httpx.Response, *, live: bool) -> list[dict[str, Any]]:
        if answer.status_code != 200:
            return []
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = answer.headers["access-control-expose-headers"]
        for name in ("electric-handle", "electric-offset", "electric-cursor"):
            assert answer.headers[name]
            assert name in exposed
        assert ("electric-schema" in answer.headers) is not live
        before, after = answer.headers["electric-offset"].split("_")
        assert before.isdecimal()
        assert after.isdecimal()
        assert answer.headers["electric-cursor"] != self.echo.get("cursor")
        messages: list[dict[str, Any]] = answer.json()
        complete = bool(messages) and messages[-1] == UP_TO_DATE
        assert ("electric-up-to-date" in answer.headers) is complete
        self.is_up_to_date |= complete
        self.echo = {
            name: answer.headers[f"electric-{name}"] for name in ("handle", "offset", "cursor")
        }
        if not self.is_up_to_date:
            del self.echo["cursor"]
        changes = messages[:-1] if complete else messages
        for message in changes:
            value = message["value"]
            assert all(item is None or isinstance(item, str) for item in value.values())
            assert message["headers"]["operation"] in {"insert", "update"}
            self.rows[message["key"]] = value
        return [message["value"] for message in changes]


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url, key_cache_seconds=60) as running:
        yield running


@pytest.fixture
async def client(app: GatewayApp) -> AsyncIterator[httpx.AsyncClient]:
    async with connected(app) as client:
        yield client


@asynccontextmanager
async def connected(app: GatewayApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=app.url, trust_env=False, timeout=PATIENCE_SECONDS * 2
    ) as client:
        yield client


def shape(client: httpx.AsyncClient, path: str, headers: Mapping[str, str]) -> Shape:
    return Shape(client, path, {**MODERN, **headers})


async def nothing_held(app: GatewayApp) -> None:
    """Wait until nothing is held for any client, but for sockets that clients keep open."""
    await until(lambda: not any(count for name, count in app.held.items() if name != "sockets"))


def assert_must_refetch(answer: httpx.Response) -> None:
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == [{"headers": {"control": "must-refetch"}}]
    assert answer.headers["electric-handle"]


class TestOneRun:
    async def test_is_there_at_once_with_everything_that_clients_need(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert(tags=["a"], payload='{"n":1}')
        feed = shape(client, one(run_id), app.bearer)
        (row,) = await feed.ask()
        assert row["friendlyId"] == run_id
        assert row["runTags"] == '{"a"}'
        assert feed.is_up_to_date
        assert list(feed.rows) == [f'"public"."TaskRun"/"{run_id}"']
        assert feed.answer.json()[0]["headers"] == {"operation": "insert"}
        assert feed.answer.headers["electric-schema"].startswith('{"id":{"type":"text"}')

    async def test_a_change_answers_the_waiting_poll(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        before = dict(feed.echo)
        async with feed.asking(app) as poll:
            await app.update(run_id, status="EXECUTING")
            (row,) = await poll
        assert row["status"] == "EXECUTING"
        assert feed.echo["handle"] == before["handle"]
        assert feed.echo["offset"] != before["offset"]
        await nothing_held(app)

    async def test_a_change_between_two_polls_answers_the_next(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        await app.update(run_id, metadata={"n": 1})
        assert [row["metadata"] for row in await feed.ask()] == ['{"n": 1}']

    async def test_a_second_change_in_the_same_millisecond_is_not_lost(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        moment = datetime.now(UTC)
        for n in (1, 2):
            # What writes the time itself may write the same one twice.
            await app.update(run_id, metadata={"n": n}, updated_at=moment)
            rows = await feed.ask()
            assert [row["metadata"] for row in rows] == [f'{{"n": {n}}}']

    async def test_a_burst_ends_with_the_newest_state_and_never_goes_back(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert(metadata={"n": 0})
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()

        async def write() -> None:
            for n in range(1, 31):
                await app.update(run_id, metadata={"n": n})

        writing = asyncio.create_task(write())
        seen = [0]
        while seen[-1] != 30:
            seen += [int(row["metadata"].strip('{}"n: ')) for row in await feed.ask()]
        await writing
        assert seen == sorted(seen)

    async def test_old_clients_get_what_they_understand(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert(status="DEQUEUED", realtime_streams=["log"])
        old = Shape(client, one(run_id), {**OLD, **app.bearer})
        (row,) = await old.ask()
        assert row["status"] == "EXECUTING"
        assert row["metadata"] == '{"$$streams":["log"]}'
        (row,) = await shape(client, one(run_id), app.bearer).ask()
        assert (row["status"], row["metadata"]) == ("DEQUEUED", "{}")

    async def test_clients_before_3_3_find_the_names_that_they_know(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        first = await client.get(one(run_id), params={"offset": "-1"}, headers=app.bearer)
        assert first.status_code == 200
        await app.update(run_id, metadata={"n": 1})
        echo = {
            "offset": first.headers["electric-chunk-last-offset"],
            "shape_id": first.headers["electric-shape-id"],
            "cursor": first.headers["electric-next-cursor"],
            "live": "true",
        }
        second = await client.get(one(run_id), params=echo, headers=app.bearer)
        assert second.json()[0]["value"]["metadata"] == '{"n": 1}'
        modern = await client.get(
            one(run_id), params={"offset": "-1"}, headers={**app.bearer, **MODERN}
        )
        assert "electric-shape-id" not in modern.headers

    async def test_a_missing_run_is_404_and_a_hidden_one_403(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert(tags=["a"])
        for path, headers, status in (
            (one("run_none"), app.bearer, 404),
            (one("run_none"), app.bearing("read:runs:run_none"), 404),
            (one("run_none"), app.bearing("read:tags:a"), 403),
            (one(run_id), app.bearing("read:runs:run_none"), 403),
            (one(run_id), {}, 401),
            ("/realtime/v1/batches/batch_none", app.bearer, 404),
        ):
            feed = shape(client, path, headers)
            await feed.ask()
            assert feed.answer.status_code == status
            assert feed.answer.headers["access-control-allow-origin"] == "*"

    async def test_a_deleted_run_is_not_told_of(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id, other = await app.insert(tags=["a"]), await app.insert(tags=["a"])
        feed = shape(client, f"{ALL}?tags=a", app.bearer)
        await feed.begin()
        async with feed.asking(app) as poll:
            await app.delete(run_id)
            await app.update(other, metadata={"n": 1})
            assert [row["id"] for row in await poll] == [other]


async def test_runs_of_one_moment_come_in_the_order_of_their_batch(
    app: GatewayApp, client: httpx.AsyncClient
) -> None:
    tasks = [f"task-{n}" for n in range(150)]  # more than the first page that is read
    items = [{"task": task} for task in tasks]
    answer = await client.post("/api/v2/tasks/batch", json={"items": items}, headers=app.bearer)
    shape = Shape(client, f"/realtime/v1/batches/{answer.json()['id']}", MODERN | app.bearer)
    assert [run["taskIdentifier"] for run in await shape.begin()] == tasks


class TestWaiting:
    async def test_without_news_only_the_cursor_moves(self, database_url: str) -> None:
        async with (
            running_app(database_url, poll_hold_seconds=SHORT) as app,
            connected(app) as client,
        ):
            run_id = await app.insert()
            feed = shape(client, one(run_id), app.bearer)
            await feed.begin()
            before = dict(feed.echo)
            for _ in range(3):
                assert await feed.ask() == []
                assert feed.answer.json() == [UP_TO_DATE]
                assert feed.echo["handle"] == before["handle"]
                assert feed.echo["offset"] == before["offset"]
            await app.update(run_id, metadata={"n": 1})
            while not (rows := await feed.ask()):  # a poll may be over before the change is told
                assert feed.answer.status_code == 200
            assert [row["metadata"] for row in rows] == ['{"n": 1}']

    async def test_a_poll_that_stands_where_the_feed_stands_asks_no_database(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        counts = app.gateway.hub.counts
        for n in range(20):  # the position moves with whatever happens in the database
            begun = counts.catch_ups
            feed.echo["cursor"] = f"{app.gateway.hub.position.cursor()}.{n}"
            async with feed.asking(app) as poll:
                await app.update(run_id, metadata={"n": n})
                assert [row["metadata"] for row in await poll] == [f'{{"n": {n}}}']
            if counts.catch_ups == begun:
                return
        raise AssertionError("every poll has asked")

    async def test_while_changes_are_handed_over_the_database_is_asked(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        run = await app.gateway.services.runs.read_run(app.environment_id, run_id)
        assert run is not None
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        hub = app.gateway.hub
        # A window in which nobody wants the run, as there is none between two polls.
        await until(lambda: hub.is_exactly_at(hub.position))
        here = hub.position
        assert not hub.wants(run.facets, ())
        assert not hub.is_exactly_at(here)
        hub.publish((), here)  # a piece of it
        assert not hub.is_exactly_at(here)
        begun = hub.counts.catch_ups
        feed.echo["cursor"] = f"{here.cursor()}.x"
        async with feed.asking(app):
            assert hub.counts.catch_ups == begun + 1
            await app.update(run_id, metadata={"n": 1})

    async def test_of_many_runs_that_change_at_once_none_is_lost(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        await app.sql.execute(
            "INSERT INTO runs (environment_id, task, tags) "
            "SELECT $1, 'many', '{many}' FROM generate_series(1, 700)",
            app.environment_id,
        )
        feeds = [shape(client, f"{ALL}?tags=many", app.bearer) for _ in range(3)]
        for feed in feeds:
            await feed.begin()
        for n in range(5):

            async def follow(feed: Shape, wanted: str = f'{{"n": {n}}}') -> None:
                while not all(row["metadata"] == wanted for row in feed.rows.values()):
                    await feed.ask()

            following_on = [asyncio.create_task(follow(feed)) for feed in feeds]
            await app.sql.execute("UPDATE runs SET metadata = json_build_object('n', $1::int)", n)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*following_on)

    async def test_whoever_goes_away_leaves_nothing_behind(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        polls = [asyncio.create_task(feed.ask()) for _ in range(5)]
        await app.subscribed(5)
        assert app.gateway.hub.subscriber_count == 5
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
        await nothing_held(app)

    async def test_many_wait_for_the_same_and_one_encoding_serves_them(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feeds = [shape(client, one(run_id), app.bearer) for _ in range(10)]
        for feed in feeds:
            await feed.begin()
        polls = [asyncio.create_task(feed.ask()) for feed in feeds]
        await app.subscribed(10)
        assert app.held["audiences"] == 1
        await app.update(run_id, metadata={"n": 1})
        rows = await asyncio.gather(*polls)
        assert all(row["metadata"] == '{"n": 1}' for (row,) in rows)

    async def test_on_drain_it_is_answered_at_once_where_it_stood(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        before = dict(feed.echo)
        async with feed.asking(app) as poll:
            await app.stop()
            assert await poll == []
        assert feed.answer.json() == [UP_TO_DATE]
        assert feed.answer.headers["connection"] == "close"
        assert {**feed.echo, "cursor": ""} == {**before, "cursor": ""}

    async def test_another_gateway_goes_on(
        self, app: GatewayApp, client: httpx.AsyncClient, database_url: str
    ) -> None:
        run_id = await app.insert(tags=["a"])
        feed = shape(client, f"{ALL}?tags=a", app.bearer)
        await feed.begin()
        await app.update(run_id, metadata={"n": 1})
        async with running_app(database_url) as other, connected(other) as second:
            feed.client = second
            assert [row["metadata"] for row in await feed.ask()] == ['{"n": 1}']
            await app.update(run_id, metadata={"n": 2})
            feed.client = client
            assert [row["metadata"] for row in await feed.ask()] == ['{"n": 2}']

    async def test_a_database_that_does_not_answer_is_only_a_delay(
        self, restartable_postgres: RestartablePostgres
    ) -> None:
        url = restartable_postgres.url
        async with (
            running_app(url, poll_hold_seconds=SHORT, key_cache_seconds=60) as app,
            connected(app) as client,
        ):
            run_id = await app.insert(tags=["a"])
            feed = shape(client, one(run_id), app.bearer)
            await feed.begin()
            await restartable_postgres.pause()
            assert await feed.ask(cursor="") == []
            assert feed.answer.json() == [UP_TO_DATE]
            fresh = shape(client, f"{ALL}?tags=a", app.bearer)
            await fresh.ask()
            assert fresh.answer.status_code == 503
            assert fresh.answer.json()["code"] == "backend_unavailable"
            await restartable_postgres.resume()
            await app.update(run_id, metadata={"n": 1})
            while not (rows := await feed.ask()):
                assert feed.answer.status_code == 200
            assert rows[0]["metadata"] == '{"n": 1}'
            assert len(await fresh.begin()) == 1

    async def test_after_a_crash_of_the_database_the_same_subscription_goes_on(
        self, restartable_postgres: RestartablePostgres
    ) -> None:
        async with running_app(restartable_postgres.url) as app, connected(app) as client:
            run_id = await app.insert()
            feed = shape(client, one(run_id), app.bearer)
            await feed.begin()
            handle = feed.echo["handle"]
            await restartable_postgres.kill()
            sql = await asyncpg.connect(restartable_postgres.url)
            await sql.execute("UPDATE runcast.runs SET metadata = '{\"n\": 1}'")
            await sql.close()
            while "n" not in next(iter(feed.rows.values()))["metadata"]:
                await feed.ask()
                assert feed.answer.status_code in (200, 503)
            assert feed.echo["handle"] != handle
            assert feed.echo["handle"].endswith(handle.rpartition(".")[2])


class TestCatchingUp:
    async def test_a_tab_that_was_hidden_is_answered_at_once(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        ids = [await app.insert(tags=["a"]) for _ in range(3)]
        feed = shape(client, f"{ALL}?tags=a", app.bearer)
        await feed.begin()
        assert await feed.ask(live=None) == []
        assert "electric-schema" in feed.answer.headers
        await app.update(ids[1], metadata={"n": 1})
        ids.append(await app.insert(tags=["a"]))
        rows = await feed.ask(live=None)
        assert {row["id"] for row in rows} == {ids[1], ids[3]}

    async def test_a_thousand_and_more_runs_come_complete(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        await app.sql.execute(
            "INSERT INTO runs (environment_id, task, tags) "
            "SELECT $1, 'many', '{many}' FROM generate_series(1, 2345)",
            app.environment_id,
        )
        await app.caught_up()
        feed = shape(client, f"{ALL}?tags=many", app.bearer)
        await feed.ask()
        assert feed.is_up_to_date
        assert len(feed.rows) == 2345
        assert app.gateway.hub.reads.read == 5  # nothing is shown early, so all pages are long

    async def test_what_is_large_comes_in_parts_and_nothing_is_lost_between_them(
        self, database_url: str
    ) -> None:
        async with (
            running_app(database_url, poll_answer_bytes=16 * 1024, snapshot_page_runs=7) as app,
            connected(app) as client,
        ):
            await app.sql.execute(
                "INSERT INTO runs (environment_id, task, tags, metadata) "
                "SELECT $1, 'many', '{many}', '{\"n\":0}' FROM generate_series(1, 100)",
                app.environment_id,
            )
            feed = shape(client, f"{ALL}?tags=many", app.bearer)
            first = await feed.ask()
            assert feed.answer.json()[-1] != UP_TO_DATE
            # The client asks on at once. Meanwhile runs change that were sent, and that were not.
            await app.update(first[0]["id"], metadata={"n": 1})
            late = await app.insert(tags=["many"], metadata={"n": 1})
            parts = 1
            while not feed.is_up_to_date:
                await feed.ask()
                parts += 1
            assert 3 < parts < 50
            await feed.ask()
            assert len(feed.rows) == 101
            changed = {row["id"] for row in feed.rows.values() if "1" in row["metadata"]}
            assert changed == {first[0]["id"], late}
            # The same for what changed since: here all of it, in one transaction.
            await app.sql.execute("UPDATE runs SET metadata = '{\"n\":2}'")
            seen: set[str] = set()
            parts = 0
            while len(seen) < 101:
                seen |= {row["id"] for row in await feed.ask(live=None)}
                parts += 1
            assert parts > 3
            assert all("2" in row["metadata"] for row in feed.rows.values())

    async def test_who_begins_now_gets_only_what_comes(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        there = await app.insert(tags=["t"])
        await app.caught_up()
        feed = shape(client, f"{ALL}?tags=t", app.bearer)
        assert await feed.ask(offset="now") == []
        assert feed.answer.json() == [UP_TO_DATE]
        assert "electric-schema" in feed.answer.headers
        comes = await app.insert(tags=["t"])
        assert [row["id"] for row in await feed.ask()] == [comes] != [there]
        at_once = {"offset": "now", "live": "true"}
        assert (await client.get(ALL, params=at_once, headers=app.bearer)).json() == [UP_TO_DATE]

    async def test_an_empty_feed_is_up_to_date(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        feed = shape(client, f"{ALL}?tags=none", app.bearer)
        assert await feed.ask() == []
        assert feed.answer.json() == [UP_TO_DATE]


class TestRefetching:
    @pytest.mark.parametrize(
        "changes",
        [
            {"handle": "garbage"},
            {"handle": None},
            {"handle": "123-456-next"},
            {"offset": "garbage"},
            {"offset": "0_inf"},
            {"offset": ""},
        ],
    )
    @pytest.mark.parametrize("live", ["true", None])
    async def test_garbage_begins_anew(
        self,
        app: GatewayApp,
        client: httpx.AsyncClient,
        changes: dict[str, str | None],
        live: str | None,
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        await feed.ask(live=live, **changes)
        assert_must_refetch(feed.answer)
        assert feed.answer.headers["electric-handle"] != feed.echo["handle"]

    async def test_after_it_the_client_gets_everything_under_a_new_handle(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        refused = feed.echo["handle"]
        await feed.ask(handle=f"{refused}-next")
        assert_must_refetch(feed.answer)
        given = feed.answer.headers["electric-handle"]
        feed.echo, feed.is_up_to_date = {"offset": "-1", "handle": given}, False
        (row,) = await feed.ask(expired_handle=refused)
        assert row["id"] == run_id
        assert feed.echo["handle"] not in (refused, given)

    async def test_a_handle_that_was_refused_is_not_given_again(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        refused = feed.echo["handle"]
        for live in (None, None):
            await feed.ask(live=live, handle=refused, expired_handle=refused)
            assert feed.answer.status_code == 200
            assert feed.echo["handle"] != refused

    async def test_the_handle_of_another_shape_is_none(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert(tags=["a"])
        feed = shape(client, f"{ALL}?tags=a", app.bearer)
        await feed.begin()
        for path in (f"{ALL}?tags=b", ALL, one(run_id)):
            feed.path = path
            await feed.ask()
            assert_must_refetch(feed.answer)

    async def test_a_handle_opens_nothing_that_the_token_does_not(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert(tags=["a"])
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        feed.headers = {**MODERN, **app.bearing("read:tags:b")}
        await feed.ask()
        assert feed.answer.status_code == 403
        feed.headers = {**MODERN, **app.bearing("read:tags:a")}
        await feed.ask()
        assert_must_refetch(feed.answer)

    async def test_a_position_that_cannot_be_continued_begins_anew(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        before, after = feed.echo["offset"].split("_")
        await feed.ask(offset=f"{int(before) + 1000}_{after}", cursor="")
        assert_must_refetch(feed.answer)

    async def test_a_feed_that_lost_its_place_lets_those_who_wait_begin_anew(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        await feed.begin()
        async with feed.asking(app) as poll:
            hub = app.gateway.hub
            hub.restart(hub.position, "ahead", "The changefeed lost its place.")
            assert await poll == []
        assert_must_refetch(feed.answer)
        assert hub.counts.resets["ahead"] == 1


class TestTokens:
    async def test_a_token_that_expires_ends_the_waiting_and_then_is_refused(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearing("read:runs", seconds=1))
        await feed.begin()
        while feed.answer.status_code == 200:
            assert await feed.ask() == []
        assert feed.answer.status_code == 401
        assert feed.answer.json()["code"] == "expired_token"

    async def test_each_run_is_judged_when_it_is_sent(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        mine = await app.insert(tags=["a"])
        hidden = await app.insert(tags=["b"])
        feed = shape(client, ALL + "?tags=a", app.bearing("read:tags:a"))
        await feed.begin()
        async with feed.asking(app) as poll:
            await app.update(hidden, metadata={"n": 1})
            await app.update(mine, metadata={"n": 1})
            assert [row["id"] for row in await poll] == [mine]

    async def test_what_a_token_withholds_is_in_neither_rows_nor_schema(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert(payload='{"secret":1}')
        token = app.token("read:runs", skip_columns=["payload"])
        feed = shape(
            client, f"{one(run_id)}?skipColumns=output", {"authorization": f"Bearer {token}"}
        )
        (row,) = await feed.ask()
        assert "payload" not in row
        assert "output" in row  # what the token says wins
        assert '"payload"' not in feed.answer.headers["electric-schema"]


class TestCreationBound:
    async def test_is_a_day_unless_asked_otherwise(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        now = datetime.now(UTC)
        ages = {"new": 0.1, "hours": 5, "days": 60}
        ids = {
            name: await app.insert(tags=["a"], created_at=now - timedelta(hours=hours))
            for name, hours in ages.items()
        }
        for query, expected in {
            "": {"new", "hours"},
            "&createdAt=1h": {"new"},
            "&createdAt=30d": {"new", "hours", "days"},
            "&createdAt=nonsense": {"new", "hours"},
        }.items():
            feed = shape(client, f"{ALL}?tags=a{query}", app.bearer)
            rows = await feed.begin()
            assert {row["id"] for row in rows} == {ids[name] for name in expected}, query

    async def test_may_be_none_by_setting(self, database_url: str) -> None:
        async with running_app(database_url, shape_window_seconds=0) as app, connected(app) as http:
            old = await app.insert(created_at=datetime(2001, 1, 1, tzinfo=UTC))
            feed = shape(http, ALL, app.bearer)
            assert [row["id"] for row in await feed.begin()] == [old]

    async def test_is_fixed_when_the_subscription_begins(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        age = timedelta(seconds=2)
        run_id = await app.insert(created_at=datetime.now(UTC) - timedelta(seconds=1))
        feed = shape(client, f"{ALL}?createdAt=2s", app.bearer)
        assert len(await feed.begin()) == 1
        created = datetime.now(UTC) - timedelta(seconds=1)
        await until(lambda: datetime.now(UTC) > created + age)  # out of a window that would drift
        await app.update(run_id, metadata={"n": 1})
        assert [row["id"] for row in await feed.ask()] == [run_id]


class TestOddRequests:
    async def test_what_is_not_known_is_ignored_and_never_reaches_the_database(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        feed = shape(client, one(run_id), app.bearer)
        rows = await feed.ask(
            **{
                "log": "full",
                "table": "environment_keys",
                "where": "1=1; DROP TABLE runs",
                "columns": "key",
                "params[1]": "x",
                "replica": "full",
                "cache-buster": "x",
                "subset__where": "true",
            }
        )
        assert [row["id"] for row in rows] == [run_id]

    async def test_a_tag_that_is_none_is_refused(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        for tags in ("a,,b", "a%22b", "a%5Cb", "a,%01"):
            feed = shape(client, f"{ALL}?tags={tags}", app.bearer)
            await feed.ask()
            assert feed.answer.status_code == 400, tags

    async def test_a_look_at_the_head_does_not_wait(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        answer = await client.head(
            one(run_id), params={"offset": "1_0", "live": "true"}, headers=app.bearer
        )
        assert answer.status_code == 200

    async def test_a_batch_shows_the_runs_that_come_later(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        made = await client.post(
            "/api/v1/tasks/batch", json={"items": [{"task": "a"}]}, headers=app.bearer
        )
        batch = made.json()
        feed = shape(client, f"/realtime/v1/batches/{batch['id']}", app.bearer)
        assert [row["id"] for row in await feed.begin()] == [batch["runs"][0]["id"]]
        async with feed.asking(app) as poll:
            late = await app.insert(batch_id=batch["id"])
            assert [row["id"] for row in await poll] == [late]


class TestLiveSse:
    @pytest.mark.parametrize("transport", ["auto", "portable"])
    @pytest.mark.parametrize("name", ["live_sse", "experimental_live_sse"])
    async def test_news_come_as_events_and_the_client_resumes_from_them(
        self, database_url: str, transport: str, name: str
    ) -> None:
        async with running_app(database_url, transport=transport) as app, connected(app) as client:
            run_id = await app.insert()
            feed = shape(client, one(run_id), app.bearer)
            await feed.begin()
            query = httpx.QueryParams({**feed.echo, "live": "true", name: "true"})
            async with following(app.url, f"{one(run_id)}?{query}", feed.headers) as events:
                head = events.response
                assert head.headers["content-type"].startswith("text/event-stream")
                assert head.headers["electric-handle"] == feed.echo["handle"]
                assert head.headers["electric-cursor"]
                assert (await data(events))["headers"]["control"] == "up-to-date"
                await app.update(run_id, metadata={"n": 1})
                assert (await data(events))["value"]["metadata"] == '{"n": 1}'
                control = (await data(events))["headers"]
                assert control["control"] == "up-to-date"
            feed.echo["offset"] = f"{control['global_last_seen_lsn']}_0"
            feed.echo["cursor"] = head.headers["electric-cursor"]
            assert await feed.ask(live=None) == []
            await app.update(run_id, metadata={"n": 2})
            assert [row["metadata"] for row in await feed.ask()] == ['{"n": 2}']


async def data(events: Any) -> Any:
    block = await events._block()
    while not block[0].startswith("data: "):
        block = await events._block()
    (line,) = block
    return httpx.Response(200, text=line.removeprefix("data: ")).json()
