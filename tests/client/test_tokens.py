"""Making public access tokens."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import runcast
from runcast import AsyncClient
from runcast.client.errors import (
    BadRequest,
    InvalidArgument,
    NotConfigured,
    NotFound,
    PermissionDenied,
    TokenRevoked,
)
from runcast.client.public_tokens import scope_texts
from tests.support.restartable_gateway import RestartableGateway


async def test_a_token_opens_what_its_scopes_say(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    mine = await client.tasks.trigger("t", tags=["user:1"], payload={"secret": 1})
    other = await client.tasks.trigger("t", tags=["user:2"])
    token = await client.create_public_token(
        {"read": {"tags": ["user:1"]}}, expires="1h", skip_columns="payload"
    )
    async with AsyncClient(gateway.url, token=token) as reader:
        run = await reader.runs.retrieve(mine.id)
        assert run.payload is None
        with pytest.raises(PermissionDenied):
            await reader.runs.retrieve(other.id)
        with pytest.raises(NotConfigured, match="secret key"):
            await reader.create_public_token("read:runs")


async def test_one_time_tokens_made_at_once_are_different_and_spent_once(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    scopes = {"trigger": {"tasks": "t"}}
    one, two = [await client.create_public_token(scopes, one_time=True) for _ in range(2)]
    assert one != two
    async with AsyncClient(gateway.url, token=one) as once:
        await once.tasks.trigger("t")
        with pytest.raises(runcast.client.errors.OneTimeTokenSpent):
            await once.tasks.trigger("t")


async def test_a_known_environment_needs_no_gateway(gateway: RestartableGateway) -> None:
    environment_id = gateway.app.environment_id
    handle_id = await gateway.app.insert(tags=["a"])
    await gateway.stop()
    async with AsyncClient(gateway.url, gateway.key, environment_id=environment_id) as client:
        moment = datetime.now(UTC) + timedelta(hours=1)
        tokens = [
            await client.create_public_token(["read:tags:a"], expires=expires)
            for expires in (timedelta(hours=1), moment, moment.timestamp(), "60 minutes")
        ]
    await gateway.start()
    for token in tokens:
        async with AsyncClient(gateway.url, token=token) as reader:
            assert (await reader.runs.retrieve(handle_id)).tags == ("a",)


async def test_the_environment_is_asked_for_once(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    first = await client.create_public_token("read:runs")
    await gateway.stop()
    assert await client.create_public_token("read:runs", expires="2h") != first


async def test_scripts_make_tokens_with_one_call(
    client: AsyncClient, gateway: RestartableGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNCAST_URL", gateway.url)
    monkeypatch.setenv("RUNCAST_SECRET_KEY", gateway.key)
    token = await asyncio.to_thread(runcast.create_public_token, ["read:runs"])
    async with AsyncClient(token=token) as reader:
        with pytest.raises(NotFound):
            await reader.runs.retrieve("run_unknown")


async def test_a_key_that_cannot_sign_has_the_gateway_sign(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    restricted = "tr_dev_sk_" + "a1" * 12
    await gateway.app.sql.execute(
        "INSERT INTO environment_keys (key, environment_id) VALUES ($1, $2)",
        restricted,
        gateway.app.environment_id,
    )
    async with AsyncClient(gateway.url, restricted) as backend:
        token = await backend.create_public_token({"read": {"runs": True}}, skip_columns=["error"])
    async with AsyncClient(gateway.url, token=token) as reader:
        assert [run async for run in reader.runs.list()] == []


@pytest.mark.parametrize(
    ("scopes", "texts"),
    [
        ("read:runs", ["read:runs"]),
        (["a", "b"], ["a", "b"]),
        ({"read": True, "write": False}, ["read"]),
        ({"read": {"runs": True, "tags": False}}, ["read:runs"]),
        (
            {"read": {"runs": ["r1", "r2"], "tags": "env:x"}},
            ["read:runs:r1", "read:runs:r2", "read:tags:env:x"],
        ),
    ],
)
def test_scopes_are_written_in_full(scopes: Any, texts: list[str]) -> None:
    assert scope_texts(scopes) == texts


async def test_what_no_token_can_hold_is_refused(client: AsyncClient) -> None:
    wrong: list[Any] = [{"read": {"runs": ""}}, {"read": {"runs": ["a", ""]}}, {"read": "runs"}]
    for scopes in wrong:
        with pytest.raises(InvalidArgument):
            await client.create_public_token(scopes)
    for expires in ("soon", "-5m", 0, datetime(2030, 1, 1)):  # noqa: DTZ001 - that is the point
        with pytest.raises(InvalidArgument):
            await client.create_public_token("read:runs", expires=expires)


async def test_tokens_are_revoked_and_good_again(
    client: AsyncClient, gateway: RestartableGateway
) -> None:
    run = await client.tasks.trigger("t")
    token = await client.create_public_token("read:runs", subject="user_1", token_id="token_1")
    async with AsyncClient(gateway.url, token=token) as reader:
        await reader.runs.retrieve(run.id)
        made = [
            await client.revoke_tokens(token),
            await client.revoke_tokens(subject="user_1", issued_before=datetime.now(UTC)),
        ]
        assert (made[0].token_id, made[1].subject) == ("token_1", "user_1")
        with pytest.raises(TokenRevoked):
            await reader.runs.retrieve(run.id)
        assert [each async for each in client.revocations()] == made[::-1]
        for revocation in made:
            assert await client.lift_revocation(revocation.id) == revocation
        await reader.runs.retrieve(run.id)
    with pytest.raises(BadRequest):
        await client.revoke_tokens()
