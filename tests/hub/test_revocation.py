"""What the hub does when grants are revoked: their connections end, at once and alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

from runcast.auth.revocation import Revocation
from runcast.hub import hub as hub_module
from tests.support.grants import make_grant
from tests.support.run_hub import RunHub
from tests.support.stream_hub import calm


def revoke(world: RunHub, token_id: str) -> None:
    now = datetime.fromtimestamp(world.clock.now(), UTC)
    until = now + timedelta(days=1)
    revocation = Revocation(token_id, "env_1", "token", token_id, None, now, now, until)
    assert world.hub.revocations.receive([revocation], world.clock.now())
    world.hub.end_revoked()


async def test_the_connection_is_told_and_ends() -> None:
    world = RunHub()
    hit, other = [await world.live(token={"token_id": each}) for each in ("a", "b")]
    revoke(world, "a")
    world.write("run_1")  # before the hub has looked at any connection
    hit.forget()
    other.forget()
    await calm()
    world.write("run_2")
    assert hit.names == ["problem token_revoked"]
    assert hit.outlet.ended == "4501 token_revoked"
    assert other.names == ["run run_2"]
    assert world.hub.counts.closed == {"revoked": 1}


async def test_what_waits_for_a_slow_reader_is_never_sent() -> None:
    world = RunHub()
    client = await world.live(token={"token_id": "a"})
    client.forget()
    client.outlet.set_writable(False)
    world.write("run_1")
    revoke(world, "a")
    await calm()
    assert client.outlet.ended == "aborted"
    assert client.outlet.written == b""


async def test_who_comes_meanwhile_does_not_stay() -> None:
    world = RunHub()
    world.write("run_1")
    revoke(world, "a")
    client = world.connect(token={"token_id": "a"})
    await calm()
    assert client.names == ["problem token_revoked"]
    assert world.hub._audiences == {}
    assert world.hub._sessions == set()


async def test_more_than_one_turn_of_the_loop_looks_at(monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_module, "_LOOKED_AT_A_TURN", 2)
    world = RunHub()
    clients = [await world.live(token={"token_id": str(number % 2)}) for number in range(9)]
    revoke(world, "0")
    revoke(world, "1")
    await calm()
    assert all(client.connection.closed for client in clients)


async def test_a_writer_is_told_too() -> None:
    world = RunHub()
    calls: list[str] = []
    with (
        world.hub.told_of_end(make_grant(token_id="a"), lambda: calls.append("a")),
        world.hub.told_of_end(make_grant(token_id="b"), lambda: calls.append("b")),
    ):
        revoke(world, "a")
        await calm()
    assert calls == ["a"]
