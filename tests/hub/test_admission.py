"""Who is let in, what the store is asked for it, and what happens when it does not answer."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from runcast.core.places import Held, PlacePace, Wish
from runcast.errors import BackendError, TooManyConnections
from runcast.hub.admission import Admission
from runcast.testing import ManualClock, MemoryPlaceStore

ENV = "env_1"
# Nothing is renewed or tried again unless a test wants it.
CALM = PlacePace(lease=1e6, renew=1e6, look=1e6, patience=10.0, settle=0.0)
HASTY = replace(CALM, look=0.01)


class WatchedStore(MemoryPlaceStore):
    """Counts what it is asked, can hold it up, and can fail."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        super().__init__(self.clock)
        self.asked: list[dict[str, Wish]] = []
        self.fails = False
        self.told = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def hold(
        self, gateway: str, wishes: Mapping[str, Wish], *, limit: int, lease_seconds: float
    ) -> Mapping[str, Held]:
        self.asked.append(dict(wishes))
        self.told.set()
        await self.open.wait()
        if self.fails:
            raise BackendError("Redis does not answer; try again.")
        return await super().hold(gateway, wishes, limit=limit, lease_seconds=lease_seconds)

    async def next_question(self) -> None:
        self.told.clear()
        await self.told.wait()


class Door:
    """A gateway's admission; connections stay until they are told to leave."""

    def __init__(
        self, store: MemoryPlaceStore, limit: int, pace: PlacePace = CALM, name: str = "a"
    ) -> None:
        self.admission = Admission(store, name, limit, pace)

    async def come(self, name: str = ENV) -> bool:
        try:
            async with self.admission.entered(name):
                self.admission.connected(name)
        except TooManyConnections:
            return False
        return True

    async def crowd(self, count: int) -> int:
        return sum(await asyncio.gather(*(self.come() for _ in range(count))))

    def leave(self, count: int = 1) -> None:
        for _ in range(count):
            self.admission.left(ENV)


@asynccontextmanager
async def at_work(*doors: Door) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for door in doors:
            stack.callback(asyncio.create_task(door.admission.run()).cancel)
        yield


async def test_a_crowd_shares_one_question_and_no_more_get_in_than_may() -> None:
    store = WatchedStore()
    door = Door(store, 20)
    store.open.clear()
    crowd = asyncio.create_task(door.crowd(30))
    await store.told.wait()
    store.open.set()
    assert await crowd == 20
    assert len(store.asked) <= 3
    assert door.admission.refused == 10
    assert await door.crowd(5) == 0
    assert len(store.asked) <= 3
    door.leave()
    assert await door.crowd(2) == 1


async def test_who_leaves_while_waiting_takes_no_place_and_hinders_nobody() -> None:
    store = WatchedStore()
    door = Door(store, 2)
    store.open.clear()
    waiting = [asyncio.create_task(door.come()) for _ in range(3)]
    await store.told.wait()
    waiting[0].cancel()
    store.open.set()
    assert await asyncio.gather(*waiting[1:]) == [True, True]
    assert door.admission.places.used == 2


async def test_a_place_is_free_again_when_what_was_to_come_did_not() -> None:
    door = Door(WatchedStore(), 1)
    with pytest.raises(BackendError):
        async with door.admission.entered(ENV):
            raise BackendError("The gateway has not reached its database yet; try again soon.")
    assert await door.come()


async def test_the_refusal_names_the_limit_and_the_setting() -> None:
    door = Door(WatchedStore(), 1)
    await door.come()
    with pytest.raises(TooManyConnections, match=r"1 at all .*RUNCAST_MAX_ENVIRONMENT_CONNECTIONS"):
        async with door.admission.entered(ENV):
            pass


async def test_without_a_limit_nobody_is_asked() -> None:
    store = WatchedStore()
    door = Door(store, 0)
    assert await door.crowd(50) == 50
    door.leave(50)
    await door.admission.close()
    assert store.asked == []


async def test_a_place_that_is_left_at_one_gateway_is_found_at_another() -> None:
    store = WatchedStore()
    first, second = (Door(store, 2, HASTY, name) for name in "ab")
    async with at_work(first, second):
        assert await first.crowd(2) == 2
        assert not await second.come()
        first.leave()
        # Nothing else was told or asked by anybody: it is the leaving that is told.
        await store.next_question()
        assert store.asked[-1] == {ENV: Wish(1, 1)}
        await until_in(second)


async def test_a_gateway_that_ends_gives_back_what_it_holds() -> None:
    store = WatchedStore()
    first, second = (Door(store, 100, CALM, name) for name in "ab")
    assert await first.crowd(60) == 60
    first.leave(60)
    await first.admission.close()
    assert await second.crowd(100) == 100


async def test_the_share_of_one_that_died_comes_back_after_its_lease() -> None:
    store = WatchedStore()
    first, second = (Door(store, 5, HASTY, name) for name in "ab")
    async with at_work(second):
        assert await first.crowd(5) == 5
        assert not await second.come()
        store.clock.advance(1e6 + 1)
        await until_in(second)


async def test_while_nobody_answers_each_counts_alone_and_afterwards_together_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = WatchedStore()
    first, second = (Door(store, 4, HASTY, name) for name in "ab")
    async with at_work(first, second):
        assert await first.crowd(2) == 2
        store.fails = True
        assert await second.crowd(9) == 4
        for _ in range(3):
            await store.next_question()
        assert len(caplog.records) == 1
        assert "counted by this gateway alone: Redis does not answer" in caplog.text
        assert second.admission.failures >= 3
        store.fails = False
        await until(lambda: not second.admission.places.alone)
        # There are six now: nobody is thrown out, but three must leave before one may come.
        second.leave(2)
        assert not await second.come()
        first.leave()
        await until_in(second)
        assert not await first.come()


async def test_a_store_that_hangs_is_waited_for_once() -> None:
    store = WatchedStore()
    store.open.clear()
    door = Door(store, 3, replace(HASTY, patience=0.01))
    assert await door.crowd(9) == 3
    assert len(store.asked) == door.admission.failures == 1
    # Its answer counts when it comes.
    store.open.set()
    await until(lambda: not door.admission._asking)
    async with at_work(door):
        await until(lambda: not door.admission.places.alone)
    assert door.admission.places.held == 3


async def until(holds: Callable[[], bool]) -> None:
    """Wait, bounded, for what tells nobody when it happens."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not come true")


async def until_in(door: Door) -> None:
    """Try until there is a place."""
    for _ in range(1000):
        if await door.come():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody gets in")
