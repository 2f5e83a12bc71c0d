"""Run feeds over real HTTP, on both tiers: what arrives, in which order, and who may see it."""

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from runcast.core.position import Position, parse_cursor
from runcast.web.feeds import created_after
from tests.support.event_feed import following
from tests.support.gate import Gate
from tests.support.gateway_app import GatewayApp, running_app

ALL = "/realtime/v1/runs"


def one(run_id: str) -> str:
    return f"/realtime/v1/runs/{run_id}"


# Paths, scopes that open each, and scopes on existing things that do not; see docs/protocol.md.
_SCOPES: tuple[tuple[str, list[str], list[str]], ...] = (
    (
        one("run_1"),
        [
            *("read:runs:run_1", "read:tasks", "read:tasks:hello", "read:tags", "read:tags:a"),
            *("read:tags:b", "read:batch", "read:batch:batch_1"),
        ],
        [],
    ),
    (ALL, ["read:tags"], ["read:runs:run_1", "read:tags:a", "read:tags:b", "read:batch"]),
    (
        f"{ALL}?tags=a,b",
        ["read:tags", "read:tags:a", "read:tags:b"],
        ["read:runs:run_1", "read:tasks", "read:batch"],
    ),
    (f"{ALL}?task=hello", ["read:tasks", "read:tasks:hello"], ["read:tags", "read:runs:run_1"]),
    (f"{ALL}?task=hello&tags=a", ["read:tasks:hello", "read:tags:a"], ["read:tags:b"]),
    (
        "/realtime/v1/batches/batch_1",
        ["read:batch", "read:batch:batch_1"],
        ["read:tags:a", "read:tasks", "read:runs:run_1"],
    ),
)


def error(answer: httpx.Response, status: int) -> str:
    """The code of a refused request, which has to be one for people and programs."""
    assert answer.status_code == status, answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    body: dict[str, Any] = answer.json()
    assert body["error"]
    return str(body["code"])


@pytest.fixture(params=["auto", "portable"])
async def app(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[GatewayApp]:
    async with running_app(database_url, transport=request.param) as running:
        yield running


@pytest.fixture
async def client(app: GatewayApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=app.url, trust_env=False) as client:
        yield client


class TestOneRun:
    async def test_every_state_arrives_and_the_feed_ends_with_the_run(
        self, app: GatewayApp
    ) -> None:
        run_id = await app.insert()
        async with following(app.url, one(run_id), app.bearer) as feed:
            assert (await feed.expect("run")).data["status"] == "QUEUED"
            await feed.expect("up-to-date")
            await app.update(run_id, status="EXECUTING")
            assert (await feed.expect("run")).data["status"] == "EXECUTING"
            await app.update(run_id, metadata={"progress": 0.5})
            assert (await feed.expect("run")).data["metadata"] == {"progress": 0.5}
            await app.finish(run_id, output='{"answer":42}')
            last = await feed.expect("run")
            assert last.data["status"] == "COMPLETED"
            assert last.data["output"] == {"answer": 42}
            assert (await feed.expect("end")).data == {"reason": "finished"}
            await feed.ended()
        await app.deserted()

    async def test_a_deleted_run_is_gone_and_the_feed_ends(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with following(app.url, one(run_id), app.bearer) as feed:
            await feed.expect("run", "up-to-date")
            await app.delete(run_id)
            assert (await feed.expect("gone")).data == {"id": run_id, "reason": "deleted"}
            assert (await feed.expect("end")).data == {"reason": "deleted"}
            await feed.ended()

    async def test_a_run_that_is_deleted_before_its_snapshot_ends_the_feed(
        self, app: GatewayApp
    ) -> None:
        run_id = await app.insert()
        other = await app.insert()
        gate = Gate(app)
        async with (
            following(app.url, one(run_id), app.bearer) as feed,
            following(app.url, ALL, app.bearer) as witness,
        ):
            await gate.reached()
            await app.delete(run_id)
            await app.update(other, status="EXECUTING")
            gate.open()
            # Behind this everybody has heard of the deletion.
            assert (await witness.expect("run")).data["id"] == other
            await feed.expect("up-to-date")
            assert (await feed.expect("end")).data == {"reason": "deleted"}
            await feed.ended()

    async def test_a_finished_run_is_shown_once(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        await app.finish(run_id)
        async with following(app.url, one(run_id), app.bearer) as feed:
            await feed.expect("run", "up-to-date")
            assert (await feed.expect("end")).data == {"reason": "finished"}
            await feed.ended()

    async def test_whoever_saw_the_end_is_told_to_stop(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        async with following(app.url, one(run_id), app.bearer) as feed:
            before = await feed.expect("run", "up-to-date")
            await app.finish(run_id)
            last = await feed.expect("run")
            assert last.id
        answer = await client.get(one(run_id), headers=app.bearer | {"last-event-id": last.id})
        assert (answer.status_code, answer.content) == (204, b"")
        answer = await client.get(one(run_id), headers=app.bearer, params={"cursor": last.id})
        assert answer.status_code == 204
        async with following(
            app.url, one(run_id), app.bearer | {"last-event-id": str(before.id)}
        ) as feed:
            assert (await feed.expect("run")).data["status"] == "COMPLETED"
            await feed.expect("up-to-date", "end")

    async def test_a_cursor_of_another_database_does_not_count_as_seen(
        self, app: GatewayApp
    ) -> None:
        run_id = await app.insert()
        await app.finish(run_id)
        here = app.gateway.hub.position
        foreign = Position(here.database + 1, here.xmax + 1_000_000).cursor()
        async with following(app.url, f"{one(run_id)}?cursor={foreign}", app.bearer) as feed:
            assert (await feed.expect("reset")).data["reason"] == "other_database"
            await feed.expect("run", "up-to-date", "end")

    async def test_a_feed_that_stays_outlives_the_run(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        async with following(app.url, f"{one(run_id)}?stay=true", app.bearer) as feed:
            await feed.expect("run", "up-to-date")
            await app.finish(run_id)
            last = await feed.expect("run")
            await app.update(run_id, metadata={"late": True})
            assert (await feed.expect("run")).data["metadata"] == {"late": True}
        path = f"{one(run_id)}?stay=true&cursor={last.id}"
        async with following(app.url, path, app.bearer) as feed:
            assert feed.response.status_code == 200
            await feed.expect("run", "up-to-date")
            await app.delete(run_id)
            assert (await feed.expect("gone")).data == {"id": run_id, "reason": "deleted"}

    async def test_stay_is_true_or_false(self, app: GatewayApp, client: httpx.AsyncClient) -> None:
        run_id = await app.insert()
        for stay in ("yes please", "2"):
            answer = await client.get(one(run_id), headers=app.bearer, params={"stay": stay})
            assert error(answer, 400) == "invalid_parameter"


class TestManyRuns:
    async def test_ids_stand_where_a_resume_is_complete(self, app: GatewayApp) -> None:
        ids = [await app.insert(tags=["a"]) for _ in range(3)]
        async with following(app.url, f"{ALL}?tags=a", app.bearer) as feed:
            snapshot = [await feed.expect("run") for _ in ids]
            assert [event.id for event in snapshot] == [None, None, None]
            assert {event.data["id"] for event in snapshot} == set(ids)
            parse_cursor((await feed.expect("up-to-date")).id or "")
            await app.sql.execute("UPDATE runs SET metadata = '{\"x\": 1}'")
            group = [await feed.expect("run") for _ in ids]
            assert [event.id for event in group[:-1]] == [None, None]
            parse_cursor(group[-1].id or "")
            assert feed.retry == 1000

    async def test_a_run_comes_goes_and_comes_back(self, app: GatewayApp) -> None:
        async with following(app.url, f"{ALL}?tags=b,a", app.bearer) as feed:
            await feed.expect("up-to-date")
            await app.insert(tags=["a"])
            run_id = await app.insert(tags=["a", "b", "c"])
            event = await feed.expect("run")
            assert event.data["id"] == run_id
            await app.update(run_id, tags=["a"])
            event = await feed.expect("gone")
            assert event.data == {"id": run_id, "reason": "unmatched"}
            assert event.id
            await app.update(run_id, tags=["b", "a"])
            assert (await feed.expect("run")).data["tags"] == ["b", "a"]
            await app.finish(run_id)
            assert (await feed.expect("run")).data["status"] == "COMPLETED"
            await app.delete(run_id)
            event = await feed.expect("gone")
            assert event.data == {"id": run_id, "reason": "deleted"}

    async def test_tasks_and_batches_and_all(self, app: GatewayApp) -> None:
        batch = await app.sql.fetchval(
            "INSERT INTO batches (environment_id, run_count) VALUES ($1, 1) RETURNING id",
            app.environment_id,
        )
        paths = [f"{ALL}?task=send%2Fmail", f"/realtime/v1/batches/{batch}", ALL]
        async with (
            following(app.url, paths[0], app.bearer) as by_task,
            following(app.url, paths[1], app.bearer) as by_batch,
            following(app.url, paths[2], app.bearer) as of_all,
        ):
            for feed in (by_task, by_batch, of_all):
                await feed.expect("up-to-date")
            first = await app.insert("send/mail")
            second = await app.insert("other", batch_id=batch)
            assert (await by_task.expect("run")).data["id"] == first
            event = await by_batch.expect("run")
            assert (event.data["id"], event.data["batchId"]) == (second, batch)
            assert (await of_all.expect("run")).data["id"] == first
            assert (await of_all.expect("run")).data["id"] == second

    async def test_a_resume_tells_all_that_happened_meanwhile(self, app: GatewayApp) -> None:
        ids = [await app.insert(tags=["a"]) for _ in range(4)]
        async with following(app.url, f"{ALL}?tags=a", app.bearer) as feed:
            cursor = (await feed.until("up-to-date")).id
        changed, left, deleted, quiet = ids
        await app.update(changed, status="EXECUTING")
        await app.update(left, tags=[])
        await app.delete(deleted)
        path = f"{ALL}?tags=a&cursor=garbage"  # the header wins
        headers = app.bearer | {"last-event-id": str(cursor)}
        async with following(app.url, path, headers) as feed:
            events = [await feed.next() for _ in range(4)]
        assert events[-1].name == "up-to-date"
        assert events[-1].id != cursor
        told = {(event.name, event.data["id"], event.data.get("reason")) for event in events[:-1]}
        assert told == {
            ("run", changed, None),
            ("gone", left, "unmatched"),
            ("gone", deleted, "deleted"),
        }
        assert quiet not in str(told)

    @pytest.mark.parametrize(
        ("shift", "reason"), [((1, 0), "other_database"), ((0, 1_000_000), "ahead")]
    )
    async def test_a_cursor_that_cannot_be_continued_resets(
        self, app: GatewayApp, shift: tuple[int, int], reason: str
    ) -> None:
        run_id = await app.insert(tags=["a"])
        here = app.gateway.hub.position
        cursor = Position(here.database + shift[0], here.xmax + shift[1]).cursor()
        async with following(app.url, f"{ALL}?cursor={cursor}", app.bearer) as feed:
            event = await feed.expect("reset")
            assert event.data["reason"] == reason
            assert event.data["message"]
            assert event.id == ""  # which takes the cursor away
            assert (await feed.expect("run")).data["id"] == run_id
            assert (await feed.expect("up-to-date")).id

    async def test_garbage_is_no_cursor(self, app: GatewayApp, client: httpx.AsyncClient) -> None:
        for cursor in ("garbage", "AA", "AQ", "ä", "A" * 50_000, "AQECAw=="):
            answer = await client.get(ALL, headers=app.bearer, params={"cursor": cursor})
            assert error(answer, 400) == "invalid_cursor"
            headers = app.bearer | {"last-event-id": cursor}
            answer = await client.get(ALL, headers=list(_encoded(headers)))
            assert error(answer, 400) == "invalid_cursor"

    async def test_a_snapshot_of_many_pages_is_whole(self, app: GatewayApp) -> None:
        await app.sql.execute(
            "INSERT INTO runs (environment_id, task) SELECT $1, 'many'"
            " FROM generate_series(1, 700)",
            app.environment_id,
        )
        async with following(app.url, f"{ALL}?task=many", app.bearer) as feed:
            ids = [(await feed.expect("run")).data["id"] for _ in range(700)]
            await feed.expect("up-to-date")
        assert len(set(ids)) == 700


class TestCreatedAt:
    async def test_a_duration_or_a_date_bounds_the_feed(self, app: GatewayApp) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        now = datetime.now(UTC)
        old = await app.insert(created_at=moment - timedelta(seconds=1))
        exact = await app.insert(created_at=moment)
        recent = await app.insert(created_at=now - timedelta(minutes=30))
        for bound, expected in {
            "1h": {recent},
            "5m": set(),
            "2026-01-02T03:04:05Z": {exact, recent},
            "2026-01-02T04:04:05+01:00": {exact, recent},
            "2026-01-02T03:04:05.001Z": {recent},
            "9999w": {old, exact, recent},
        }.items():
            async with following(app.url, f"{ALL}?createdAt={quote(bound)}", app.bearer) as feed:
                seen = set()
                while (event := await feed.next()).name == "run":
                    seen.add(event.data["id"])
                assert event.name == "up-to-date"
            assert seen == expected, bound

    async def test_what_is_created_later_is_judged_too(self, app: GatewayApp) -> None:
        async with following(app.url, f"{ALL}?createdAt=1h", app.bearer) as feed:
            await feed.expect("up-to-date")
            await app.insert(created_at=datetime.now(UTC) - timedelta(hours=2))
            run_id = await app.insert()
            assert (await feed.expect("run")).data["id"] == run_id

    def test_a_duration_is_the_same_bound_for_a_crowd(self) -> None:
        """A regression: each poll had a bound of its own, and so all reads for itself alone."""
        hour, begun = 3600, 1_800_000_000.0
        for text, seconds in {"1h": hour, "1d": 24 * hour, "7s": 7}.items():
            bounds = {created_after(text, begun + 0.0003 * seconds * each) for each in range(30)}
            assert len(bounds) <= 2, text
            assert None not in bounds
            assert begun - 1.01 * seconds <= min(filter(None, bounds)) <= begun - seconds

    async def test_anything_else_is_refused(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        for bound in (
            "yesterday",
            "1",
            "-1h",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-13-02T03:04:05Z",
            "\N{ARABIC-INDIC DIGIT THREE}h",
            "99999999999999999999999h",
            "1h" * 400,
        ):
            answer = await client.get(ALL, headers=app.bearer, params={"createdAt": bound})
            assert error(answer, 400) == "invalid_parameter", bound

    async def test_bounds_may_lie_before_and_behind_all_time(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        for bound in ("400000w", "0001-01-01T00:00:00+14:00"):
            async with following(app.url, f"{ALL}?createdAt={quote(bound)}", app.bearer) as feed:
                assert (await feed.expect("run")).data["id"] == run_id
                await feed.expect("up-to-date")
        path = f"{ALL}?createdAt=9999-12-31T23:59:59-14:00"
        async with following(app.url, path, app.bearer) as feed:
            await feed.expect("up-to-date")


class TestColumns:
    async def test_columns_are_skipped_as_asked(self, app: GatewayApp) -> None:
        run_id = await app.insert(payload='{"secret":1}', output='{"secret":2}')
        path = f"{one(run_id)}?skipColumns=payload,%20output,unheardOf,id,"
        async with following(app.url, path, app.bearer) as feed:
            snapshot = (await feed.expect("run")).data
            await feed.expect("up-to-date")
            await app.update(run_id, metadata={"x": 1})
            live = (await feed.expect("run")).data
        for run in (snapshot, live):
            assert run["id"] == run_id
            assert not {"payload", "output"} & run.keys()
        assert live["metadata"] == {"x": 1}

    async def test_a_token_says_which_columns_its_bearer_never_sees(self, app: GatewayApp) -> None:
        run_id = await app.insert(payload='{"secret":1}', output='{"secret":2}')
        headers = app.bearing(f"read:runs:{run_id}", skip_columns=["payload", "output"])
        async with following(app.url, f"{one(run_id)}?skipColumns=tags", headers) as feed:
            snapshot = (await feed.expect("run")).data
            await feed.expect("up-to-date")
            await app.update(run_id, metadata={"x": 1})
            live = (await feed.expect("run")).data
        for run in (snapshot, live):
            assert not {"payload", "output"} & run.keys()

    async def test_what_cannot_be_a_column_is_refused(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        many = ",".join("x" * length for length in range(1, 65)) + ",y"
        for columns in ("a b", "pay-load", "x" * 65, "tags,1", many):
            answer = await client.get(ALL, headers=app.bearer, params={"skipColumns": columns})
            assert error(answer, 400) == "invalid_parameter", columns

    async def test_withheld_columns_are_for_secret_keys_only(self, database_url: str) -> None:
        async with running_app(database_url, withheld_columns="payload,output") as app:
            run_id = await app.insert(payload='{"secret":1}')
            async with following(app.url, one(run_id), app.bearing("read:runs")) as feed:
                assert "payload" not in (await feed.expect("run")).data
                await feed.expect("up-to-date")
                await app.finish(run_id, output='"secret"')
                assert "output" not in (await feed.expect("run")).data
            async with following(app.url, one(run_id), app.bearer) as feed:
                event = await feed.expect("run")
                assert (event.data["payload"], event.data["output"]) == ({"secret": 1}, "secret")


class TestAuthorization:
    async def test_each_scope_opens_what_it_names_and_nothing_else(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        await app.sql.execute(
            "INSERT INTO batches (id, environment_id, run_count) VALUES ('batch_1', $1, 1)",
            app.environment_id,
        )
        await app.insert(id="run_1", tags=["a", "b"], batch_id="batch_1")
        everything = ["read:runs", "read:all", "*:runs", "*:all", "admin"]
        useless = [
            *("read", "read:", "read:runs:", "read:runs:run_2", "read:tags:", "read:tags:c"),
            *("read:tasks:other", "read:batch:batch_2", "write:runs", "trigger:tasks:hello"),
        ]
        for path, opened_by, not_by in _SCOPES:
            for scope in [*everything, *opened_by]:
                async with following(app.url, path, app.bearing(scope)) as feed:
                    assert feed.response.status_code == 200, (path, scope)
            for scopes in [], useless, not_by:
                answer = await client.get(path, headers=app.bearing(*scopes))
                assert error(answer, 403) == "insufficient_scope", (path, scopes)

    async def test_only_who_might_read_a_run_learns_that_there_is_none(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        missing = one("run_nothere")
        for headers in (
            app.bearer,
            app.bearing("read:runs"),
            app.bearing("read:runs:run_nothere"),
        ):
            assert error(await client.get(missing, headers=headers), 404) == "not_found"
        hidden = one(await app.insert(tags=["a"]))
        headers = app.bearing("read:runs:run_other", "read:tags:b")
        answers = [await client.get(path, headers=headers) for path in (missing, hidden)]
        assert [error(answer, 403) for answer in answers] == ["insufficient_scope"] * 2
        shapes = [
            answer.text.replace(path.rpartition("/")[2], "")
            for answer, path in zip(answers, (missing, hidden), strict=True)
        ]
        assert shapes[0] == shapes[1]

    async def test_another_environment_does_not_exist(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        _, other_key = await app.keys.create_environment("other", "Other")
        run_id = await app.insert(tags=["a"])
        batch = await app.sql.fetchval(
            "INSERT INTO batches (environment_id, run_count) VALUES ($1, 1) RETURNING id",
            app.environment_id,
        )
        other = {"authorization": f"Bearer {other_key}"}
        for path in (one(run_id), f"/realtime/v1/batches/{batch}"):
            assert error(await client.get(path, headers=other), 404) == "not_found"
        async with following(app.url, ALL, other) as feed:
            await feed.expect("up-to-date")
            await app.update(run_id, status="EXECUTING")
            environment_id = await app.sql.fetchval(
                "SELECT id FROM environments WHERE slug = 'other'"
            )
            theirs = await app.insert(environment_id=environment_id)
            assert (await feed.expect("run")).data["id"] == theirs

    async def test_a_tag_decides_what_its_token_sees(self, app: GatewayApp) -> None:
        mine = await app.insert(tags=["a", "user_1"])
        theirs = await app.insert(tags=["a", "user_2"])
        headers = app.bearing("read:tags:user_1")
        async with following(app.url, f"{ALL}?tags=a,user_1", headers) as feed:
            assert (await feed.expect("run")).data["id"] == mine
            await feed.expect("up-to-date")
            await app.update(theirs, metadata={"x": 1})
            await app.update(mine, tags=["a"])
            assert (await feed.expect("gone")).data == {"id": mine, "reason": "unmatched"}
            await app.update(mine, metadata={"hidden": 1})
            await app.update(mine, tags=["a", "user_1"])
            event = await feed.expect("run")
            assert (event.data["id"], event.data["metadata"]) == (mine, {"hidden": 1})

    async def test_a_tag_scoped_token_on_the_feed_of_one_run(self, app: GatewayApp) -> None:
        run_id = await app.insert(tags=["user_1"])
        async with following(app.url, one(run_id), app.bearing("read:tags:user_1")) as feed:
            await feed.expect("run", "up-to-date")
            await app.update(run_id, tags=[])
            assert (await feed.expect("gone")).data == {"id": run_id, "reason": "unmatched"}
            await app.update(run_id, tags=["user_1"])
            await feed.expect("run")
            await app.finish(run_id)
            await feed.expect("run", "end")
            await feed.ended()

    async def test_a_run_that_was_never_shown_is_never_gone(self, app: GatewayApp) -> None:
        run_id = await app.insert(tags=["a", "user_2"])
        headers = app.bearing("read:tags:user_1")
        async with following(app.url, f"{ALL}?tags=user_1", headers) as feed:
            await feed.expect("up-to-date")
            await app.update(run_id, tags=["a"])
            await app.delete(run_id)
            mine = await app.insert(tags=["user_1"])
            assert (await feed.expect("run")).data["id"] == mine


class TestTokens:
    async def test_bad_tokens_are_refused(self, app: GatewayApp, client: httpx.AsyncClient) -> None:
        run_id = await app.insert()
        good = app.token("read:runs")
        head, body, signature = good.split(".")
        forged = [
            "nonsense",
            "a.b.c",
            f"{head}.{body}.",
            f"{head}.{body}.{signature[:-2]}AA",
            f"eyJhbGciOiJub25lIn0.{body}.{signature}",
            f"eyJhbGciOiJub25lIn0.{body}.",
            app.token("read:runs", secret="tr_dev_" + "x" * 40),
            app.token("read:runs", environment_id="env_other"),
            good + "A" * 9000,
            "tr_dev_" + "y" * 40,
        ]
        for path in (one(run_id), ALL):
            for token in forged:
                answers = [
                    await client.get(path, headers={"authorization": f"Bearer {token}"}),
                    await client.get(path, params={"token": token}),
                ]
                assert [error(answer, 401) for answer in answers] == ["invalid_token"] * 2
            for headers in ({}, {"authorization": "Bearer"}, {"authorization": f"Basic {good}"}):
                answer = await client.get(path, headers=headers)
                assert error(answer, 401) == "missing_token"

    async def test_a_public_token_may_stand_in_the_address_a_key_may_not(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        token = app.token(f"read:runs:{run_id}")
        async with following(app.url, f"{one(run_id)}?token={token}") as feed:
            await feed.expect("run", "up-to-date")
        for path in (one(run_id), ALL):
            answer = await client.get(path, params={"token": app.key})
            assert error(answer, 401) == "invalid_token"
            assert app.key not in answer.text

    async def test_the_header_wins_over_the_address(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        token = app.token("read:tags:none")
        async with following(app.url, f"{one(run_id)}?token={token}", app.bearer) as feed:
            await feed.expect("run", "up-to-date")

    async def test_a_feed_ends_when_its_token_does(self, app: GatewayApp) -> None:
        run_id = await app.insert()
        token = app.token("read:runs", seconds=1)
        async with following(app.url, f"{one(run_id)}?token={token}") as feed:
            await feed.expect("run", "up-to-date")
            (connection,) = app.gateway.hub.connections
            assert connection.deadline <= _expiry(token)
            event = await feed.expect("expired")
            assert event.data["code"] == "expired_token"
            assert event.data["message"]
            assert event.id is None
            await feed.ended()
        await app.deserted()

    async def test_a_retired_key_works_until_its_grace_ends(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        run_id = await app.insert()
        token = app.token("read:runs")
        old = app.bearer
        fresh = await app.keys.rotate_key(app.environment_id, 600)
        for headers in (old, {"authorization": f"Bearer {token}"}):
            async with following(app.url, one(run_id), headers) as feed:
                await feed.expect("run", "up-to-date")
        await app.sql.execute(
            "UPDATE environment_keys SET expires_at = now() + interval '2 seconds' WHERE key = $1",
            app.key,
        )
        async with following(app.url, f"{one(run_id)}?token={token}") as feed:
            await feed.expect("run", "up-to-date", "expired")
            await feed.ended()
        await app.sql.execute(
            "UPDATE environment_keys SET expires_at = now() WHERE key = $1", app.key
        )
        for headers in (old, {"authorization": f"Bearer {token}"}):
            answer = await client.get(one(run_id), headers=headers)
            assert error(answer, 401) == "invalid_token"
        async with following(app.url, one(run_id), {"authorization": f"Bearer {fresh}"}) as feed:
            await feed.expect("run", "up-to-date")


class TestSelectors:
    async def test_what_no_run_can_be_is_refused(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        for query, code in {
            "tags=" + ",".join(f"t{n}" for n in range(11)): "invalid_selector",
            "tags=a,,b": "invalid_selector",
            "tags=" + "x" * 129: "invalid_selector",
            "tags=%0a": "invalid_selector",
            "tags=%00": "invalid_parameter",
            "task=": "invalid_selector",
            "task=" + "x" * 513: "invalid_selector",
        }.items():
            assert error(await client.get(f"{ALL}?{query}", headers=app.bearer), 400) == code

    async def test_tags_in_any_language(self, app: GatewayApp) -> None:
        run_id = await app.insert(tags=["größe:ü", "日本"])
        path = f"{ALL}?tags={quote('日本')}&tags={quote('größe:ü')}"
        async with following(app.url, path, app.bearing("read:tags:日本")) as feed:
            assert (await feed.expect("run")).data["id"] == run_id

    async def test_an_unknown_batch_is_not_found(
        self, app: GatewayApp, client: httpx.AsyncClient
    ) -> None:
        answer = await client.get("/realtime/v1/batches/batch_none", headers=app.bearer)
        assert error(answer, 404) == "not_found"


def _encoded(headers: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    """Headers in UTF-8, which httpx would refuse to send."""
    for name, value in headers.items():
        yield name.encode(), value.encode()


def _expiry(token: str) -> float:
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return float(claims["exp"])
