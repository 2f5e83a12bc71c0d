"""Listing runs over HTTP: filters, pages, who may see what, and polling."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from runcast.ports import PageKey
from runcast.web.page_cursor import PageCursor, format_page_cursor, parse_page_cursor
from tests.support.gateway import RunningGateway, Tenant

LIST = "/api/v1/runs"


async def ids(tenant: Tenant, **query: Any) -> list[str]:
    answer = await tenant.client.get(LIST, params=query)
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json()["data"]]


async def test_runs_are_listed_newest_first_with_their_environment(tenant: Tenant) -> None:
    first, second = await tenant.trigger(), await tenant.trigger(metadata={"$$streams": ["a"]})
    answer = (await tenant.client.get(LIST)).json()
    assert [run["id"] for run in answer["data"]] == [second, first]
    assert answer["data"][0]["env"] == {"id": tenant.environment_id, "name": "Dev"}
    assert answer["data"][0]["metadata"] == {}
    assert answer["pagination"] == {}
    assert "payload" not in answer["data"][0]


async def test_every_filter_narrows(gateway: RunningGateway, tenant: Tenant) -> None:
    a = await tenant.trigger(
        "task-a", tags=["x", "y"], test=True, lockToVersion="v1", machine="micro", region="eu"
    )
    b = await tenant.trigger("task-b", tags=["y"], queue={"name": "slow"}, bulkActionId="bulk_1")
    c = await tenant.trigger("task-c", delay="1h")
    await tenant.patch(b, status="WAITING_TO_RESUME")
    batch = await tenant.client.post(
        "/api/v2/tasks/batch", json={"items": [{"task": "task-d", "payload": 1}]}
    )
    (d,) = await ids(tenant, **{"filter[batch]": batch.json()["id"]})
    everything = {a, b, c, d}
    for query, expected in [
        ({"filter[taskIdentifier]": "task-a"}, {a}),
        ({"filter[taskIdentifier]": "task-a,task-c"}, {a, c}),
        ({"filter[tag]": "x"}, {a}),
        ({"filter[tag]": "x,y"}, {a, b}),
        ({"filter[tag]": "y", "filter[taskIdentifier]": "task-b,task-c"}, {b}),
        ({"filter[status]": "WAITING"}, {b}),
        ({"filter[status]": "FROZEN,DELAYED"}, {b, c}),
        ({"filter[status]": "QUEUED"}, {a, d}),
        ({"filter[isTest]": "true"}, {a}),
        ({"filter[isTest]": "false"}, {b, c, d}),
        ({"filter[version]": "v1,v2"}, {a}),
        ({"filter[machine]": "micro"}, {a}),
        ({"filter[region]": "eu"}, {a}),
        ({"filter[queue]": "slow"}, {b}),
        ({"filter[queue]": "slow,task/task-a"}, {a, b}),
        ({"filter[bulkAction]": "bulk_1"}, {b}),
        ({"filter[schedule]": "schedule_1"}, set()),
        ({"filter[createdAt][period]": "1d"}, everything),
        ({"filter[createdAt][from]": "2020-01-01T00:00:00Z"}, everything),
        ({"filter[createdAt][from]": "4102444800000"}, set()),
        ({"filter[createdAt][to]": "2020-01-01"}, set()),
        ({"filter[createdAt][to]": "4102444800000"}, everything),
        ({"filter[tag]": ""}, everything),
    ]:
        assert set(await ids(tenant, **query)) == expected, query


async def test_pages_go_through_everything_in_both_directions(
    tenant: Tenant, database_url: str
) -> None:
    made = [await tenant.trigger(tags=["t"]) for _ in range(7)]
    await one_moment(database_url, made[2:5])
    newest_first = await ids(tenant, **{"page[size]": 100})
    assert len(newest_first) == 7
    query: dict[str, Any] = {"page[size]": 3, "filter[tag]": "t"}
    pages, cursors = [], []
    while True:
        answer = (await tenant.client.get(LIST, params=query)).json()
        pages.append([run["id"] for run in answer["data"]])
        cursors.append(answer["pagination"])
        if "next" not in answer["pagination"]:
            break
        query["page[after]"] = answer["pagination"]["next"]
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [run_id for page in pages for run_id in page] == newest_first
    assert ["previous" in each for each in cursors] == [False, True, True]

    back = {"page[size]": 3, "filter[tag]": "t", "page[before]": cursors[2]["previous"]}
    middle = (await tenant.client.get(LIST, params=back)).json()
    assert [run["id"] for run in middle["data"]] == pages[1]
    back["page[before]"] = middle["pagination"]["previous"]
    first = (await tenant.client.get(LIST, params=back)).json()
    assert [run["id"] for run in first["data"]] == pages[0]
    assert "previous" not in first["pagination"]
    assert "next" in first["pagination"]


async def test_the_cursor_followed_counts_not_the_one_that_led_there(tenant: Tenant) -> None:
    """Official clients that turn back send both."""
    for _ in range(5):
        await tenant.trigger()
    newest_first = await ids(tenant)
    query: dict[str, Any] = {"page[size]": 2}
    answer = (await tenant.client.get(LIST, params=query)).json()
    for turn, key, expected in [
        ("next", "page[after]", newest_first[2:4]),
        ("previous", "page[before]", newest_first[:2]),
        ("next", "page[after]", newest_first[2:4]),
        ("next", "page[after]", newest_first[4:]),
        ("previous", "page[before]", newest_first[2:4]),
        ("previous", "page[before]", newest_first[:2]),
    ]:
        query[key] = answer["pagination"][turn]
        answer = (await tenant.client.get(LIST, params=query)).json()
        assert [run["id"] for run in answer["data"]] == expected


async def one_moment(database_url: str, run_ids: list[str]) -> None:
    """Give runs the same time of creation, which no client can."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            "UPDATE runcast.runs SET created_at ="
            " (SELECT min(created_at) FROM runcast.runs WHERE id = ANY($1::text[]))"
            " WHERE id = ANY($1::text[])",
            run_ids,
        )
    finally:
        await connection.close()


async def test_an_unchanged_poll_costs_a_304(gateway: RunningGateway, tenant: Tenant) -> None:
    run_id = await tenant.trigger(tags=["mine"])
    await tenant.trigger(tags=["other"])
    query = {"filter[tag]": "mine"}
    first = await tenant.client.get(LIST, params=query)
    known = {"if-none-match": f'"else", {first.headers["etag"]}'}
    again = await tenant.client.get(LIST, params=query, headers=known)
    assert (again.status_code, again.content) == (304, b"")
    old_client = bearing_only(tenant) | known
    assert (await gateway.anybody.get(LIST, params=query, headers=old_client)).status_code == 200
    await tenant.patch(run_id, metadata={"moved": True})
    assert (await tenant.client.get(LIST, params=query, headers=known)).status_code == 200


def bearing_only(tenant: Tenant) -> dict[str, str]:
    return {"authorization": f"Bearer {tenant.key}"}


@pytest.mark.parametrize(
    "query",
    [
        {"page[size]": "0"},
        {"page[size]": "101"},
        {"page[size]": "many"},
        {"page[size]": ["5", "6"]},
        {"page[after]": "rubbish"},
        {"page[before]": "cnViYmlzaA"},
        {"filter[status]": "DONE"},
        {"filter[isTest]": "maybe"},
        {"filter[createdAt][from]": "then"},
        {"filter[createdAt][to]": "9" * 30},
        {"filter[createdAt][period]": "a while"},
        {"filter[taskIdentifer]": "typo"},
        {"page[offset]": "3"},
        {"filter[tag]": "a\0b"},
        {"filter[tag]": ",".join(f"t{n}" for n in range(101))},
    ],
)
async def test_bad_queries_are_400_and_say_why(tenant: Tenant, query: dict[str, Any]) -> None:
    answer = await tenant.client.get(LIST, params=query)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("invalid_parameter", "invalid_cursor")
    assert len(answer.json()["error"]) > 10


@pytest.mark.parametrize(
    ("scopes", "query", "status"),
    [
        (["read:runs"], {}, 200),
        (["read:tasks"], {}, 200),
        (["read:all"], {}, 200),
        (["read:runs:run_1"], {}, 403),
        (["read:tags"], {}, 403),
        (["read:tasks:a"], {}, 403),
        (["read:tasks:a"], {"filter[taskIdentifier]": "a"}, 200),
        (["read:tasks:a"], {"filter[taskIdentifier]": "a,b"}, 403),
        (["read:tasks:a", "read:tasks:b"], {"filter[taskIdentifier]": "a,b"}, 200),
        (["read:tags:x"], {"filter[tag]": "x"}, 200),
        (["read:tags"], {"filter[tag]": "x,y"}, 200),
        (["read:tags:x"], {"filter[tag]": "x,y"}, 403),
        (["read:tags:x"], {"filter[tag]": "x", "filter[taskIdentifier]": "b"}, 200),
        (["read:batch:batch_1"], {"filter[batch]": "batch_1"}, 200),
        (["read:batch:batch_1"], {"filter[batch]": "batch_2"}, 403),
        (["write:runs"], {}, 403),
        ([], {}, 403),
    ],
)
async def test_a_token_lists_only_what_it_may_read_wholly(
    gateway: RunningGateway,
    tenant: Tenant,
    scopes: list[str],
    query: dict[str, str],
    status: int,
) -> None:
    for task in ("a", "b"):
        for tag in ("x", "y"):
            await tenant.trigger(task, tags=[tag])
    headers = tenant.bearing(*scopes)
    answer = await gateway.anybody.get(LIST, params=query, headers=headers)
    assert answer.status_code == status
    for run in answer.json().get("data", []):
        seen = await gateway.anybody.get(f"/api/v3/runs/{run['id']}", headers=headers)
        assert seen.status_code == 200


def test_cursors_survive_the_round_trip() -> None:
    key = PageKey(datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC), "run_1:2")
    cursor = PageCursor(key, step=3)
    assert parse_page_cursor(format_page_cursor(cursor)) == cursor
