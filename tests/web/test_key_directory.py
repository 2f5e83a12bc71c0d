"""What is remembered of keys, for how long, and how much."""

import asyncio
import gc

from runcast.auth.keys import KeyRing, SigningKey
from runcast.errors import BackendError
from runcast.web.key_directory import KeyDirectory


class ManualClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


class CountingStore:
    """Keys in memory; counts readings and can hold them up."""

    def __init__(self) -> None:
        self.rings: dict[str, KeyRing] = {}
        self.environments: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.readings: list[str] = []
        self.asked = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def read_key_ring(self, environment_id: str) -> KeyRing | None:
        self.readings.append(environment_id)
        await self.open.wait()
        return self.rings.get(environment_id)

    async def read_environment_name(self, environment_id: str) -> str | None:
        self.readings.append(environment_id)
        return self.names.get(environment_id)

    async def read_environment_id(self, key: str) -> str | None:
        self.readings.append(key)
        self.asked.set()
        await self.open.wait()
        return self.environments.get(key)


def ring(environment_id: str, secret: str) -> KeyRing:
    return KeyRing(environment_id, (SigningKey(secret),))


def directory(store: CountingStore, clock: ManualClock, max_entries: int = 100) -> KeyDirectory:
    return KeyDirectory(store, clock=clock, ttl_seconds=10.0, max_entries=max_entries)


async def test_known_keys_are_read_once_within_their_time() -> None:
    store, clock = CountingStore(), ManualClock()
    keys = directory(store, clock)
    store.rings["env_1"] = ring("env_1", "k" * 32)
    for _ in range(3):
        assert await keys.key_ring("env_1") == store.rings["env_1"]
    assert store.readings == ["env_1"]
    store.rings["env_1"] = ring("env_1", "n" * 32)
    clock.time += 9.9
    assert await keys.key_ring("env_1") == ring("env_1", "k" * 32)
    clock.time += 0.2
    assert await keys.key_ring("env_1") == ring("env_1", "n" * 32)


async def test_what_is_unknown_is_asked_again_after_a_second() -> None:
    store, clock = CountingStore(), ManualClock()
    keys = directory(store, clock)
    assert await keys.environment_id("key") is None
    store.environments["key"] = "env_1"
    clock.time += 0.9
    assert await keys.environment_id("key") is None
    clock.time += 0.2
    assert await keys.environment_id("key") == "env_1"
    assert store.readings == ["key", "key"]


async def test_an_environment_that_is_not_there_has_no_keys() -> None:
    keys = directory(CountingStore(), ManualClock())
    assert await keys.key_ring("env_x") == KeyRing("env_x", ())


async def test_guesses_do_not_push_out_what_is_known() -> None:
    store, clock = CountingStore(), ManualClock()
    keys = directory(store, clock, max_entries=3)
    store.environments["good"] = "env_1"
    await keys.environment_id("good")
    for n in range(50):
        assert await keys.environment_id(f"guess{n}") is None
    assert await keys.environment_id("good") == "env_1"
    assert store.readings.count("good") == 1
    # The first guesses are forgotten again: memory is bounded.
    await keys.environment_id("guess0")
    assert store.readings.count("guess0") == 2


async def test_only_so_many_known_keys_are_remembered() -> None:
    store, clock = CountingStore(), ManualClock()
    keys = directory(store, clock, max_entries=2)
    for name in ("a", "b", "c"):
        store.environments[name] = f"env_{name}"
        await keys.environment_id(name)
    await keys.environment_id("c")
    await keys.environment_id("a")
    assert store.readings == ["a", "b", "c", "a"]


async def test_those_who_ask_at_once_share_one_reading_and_may_leave_it() -> None:
    store, clock = CountingStore(), ManualClock()
    keys = directory(store, clock)
    store.environments["key"] = "env_1"
    store.open.clear()
    asking = [asyncio.create_task(keys.environment_id("key")) for _ in range(5)]
    await store.asked.wait()
    asking[0].cancel()
    store.open.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == ["env_1"] * 4
    assert store.readings == ["key"]


async def test_a_store_that_fails_is_asked_again() -> None:
    clock = ManualClock()

    class Failing(CountingStore):
        async def read_environment_id(self, key: str) -> str | None:
            self.readings.append(key)
            if len(self.readings) == 1:
                raise ConnectionError("gone")
            return "env_1"

    store = Failing()
    keys = directory(store, clock)
    results = await asyncio.gather(keys.environment_id("key"), return_exceptions=True)
    assert isinstance(results[0], ConnectionError)
    assert await keys.environment_id("key") == "env_1"


async def test_a_failure_that_nobody_waits_for_is_silent() -> None:
    """A regression, found by chaos: it was an error in the log."""
    store = CountingStore()
    store.open.clear()
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))

    async def fail(environment_id: str) -> None:
        await store.open.wait()
        raise BackendError("away")

    store.read_key_ring = fail  # type: ignore[method-assign]
    asked = asyncio.create_task(directory(store, ManualClock()).key_ring("env_1"))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait([asked])
    store.open.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del asked
    gc.collect()
    assert unheard == []


async def test_names_of_environments_are_remembered_too() -> None:
    store, clock = CountingStore(), ManualClock()
    keys = directory(store, clock)
    assert await keys.environment_name("env_1") == "env_1"
    clock.time += 1.1
    store.names["env_1"] = "Production"
    assert [await keys.environment_name("env_1") for _ in range(2)] == ["Production"] * 2
    assert store.readings == ["env_1", "env_1"]


async def test_what_no_key_fits_has_the_keys_read_again_once_a_second() -> None:
    store, clock = CountingStore(), ManualClock()
    keys = directory(store, clock)
    store.rings["env_1"] = ring("env_1", "k" * 32)
    await keys.key_ring("env_1")
    store.rings["env_1"] = ring("env_1", "n" * 32)
    for _ in range(3):
        assert await keys.recent_key_ring("env_1") == ring("env_1", "k" * 32)
    clock.time += 1.1
    for _ in range(3):
        assert await keys.recent_key_ring("env_1") == store.rings["env_1"]
    assert await keys.key_ring("env_1") == store.rings["env_1"]
    assert store.readings == ["env_1", "env_1"]
