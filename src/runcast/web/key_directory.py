"""What the gateway remembers of keys, so that not every request asks the database."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from runcast.auth.keys import KeyRing
from runcast.hub.unheard import retrieved
from runcast.ports import Clock, KeyStore

# How old an answer may be that somebody is turned away for.
_REFUSAL_SECONDS = 1.0

V = TypeVar("V")


class _Memory(Generic[V]):
    """
    The answers to one question, each kept for a while; the oldest leave when it is full.

    Unknown keys are remembered apart and for a second only, so that guesses cannot push out
    what is known. Callers who ask the same thing at once share one reading.
    """

    def __init__(
        self,
        read: Callable[[str], Awaitable[V | None]],
        *,
        clock: Clock,
        ttl_seconds: float,
        max_entries: int,
    ) -> None:
        self._read = read
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries
        self._known: OrderedDict[str, tuple[V, float]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._readings: dict[str, asyncio.Task[V | None]] = {}

    async def get(self, key: str, *, max_age_seconds: float | None = None) -> V | None:
        now = self._clock.now()
        if (known := self.known(key, max_age_seconds=max_age_seconds)) is not None:
            return known
        if now < self._unknown.get(key, 0.0):
            return None
        reading = self._readings.get(key)
        if reading is None:
            reading = asyncio.create_task(self._read_and_keep(key))
            reading.add_done_callback(retrieved)
            self._readings[key] = reading
        # One caller that goes away must not take the answer from the others.
        return await asyncio.shield(reading)

    def known(self, key: str, *, max_age_seconds: float | None = None) -> V | None:
        """The answer if it need not be read."""
        max_age = self._ttl_seconds if max_age_seconds is None else max_age_seconds
        entry = self._known.get(key)
        if entry is not None and self._clock.now() < entry[1] + min(max_age, self._ttl_seconds):
            return entry[0]
        return None

    def known_until(self, key: str) -> float:
        """When the answer is to be read again, in Unix seconds."""
        entry = self._known.get(key)
        return 0.0 if entry is None else entry[1] + self._ttl_seconds

    async def _read_and_keep(self, key: str) -> V | None:
        try:
            asked_at = self._clock.now()
            value = await self._read(key)
        finally:
            del self._readings[key]
        self._known.pop(key, None)
        self._unknown.pop(key, None)
        if value is None:
            self._unknown[key] = asked_at + min(_REFUSAL_SECONDS, self._ttl_seconds)
            _drop_oldest(self._unknown, self._max_entries)
        else:
            self._known[key] = (value, asked_at)
            _drop_oldest(self._known, self._max_entries)
        return value


class KeyDirectory:
    """
    Environments and their keys, at most ``ttl_seconds`` behind the store.

    Rotated and revoked keys take effect within that time, new ones within a second.
    """

    def __init__(
        self, store: KeyStore, *, clock: Clock, ttl_seconds: float, max_entries: int = 10_000
    ) -> None:
        self._rings = _Memory(
            store.read_key_ring, clock=clock, ttl_seconds=ttl_seconds, max_entries=max_entries
        )
        self._names = _Memory(
            store.read_environment_name,
            clock=clock,
            ttl_seconds=ttl_seconds,
            max_entries=max_entries,
        )
        self._environments = _Memory(
            store.read_environment_id, clock=clock, ttl_seconds=ttl_seconds, max_entries=max_entries
        )

    async def key_ring(self, environment_id: str) -> KeyRing:
        """Give the keys of an environment; one that does not exist has none."""
        return await self._rings.get(environment_id) or KeyRing(environment_id, ())

    async def recent_key_ring(self, environment_id: str) -> KeyRing:
        """As `key_ring`, at most a second behind the store: for what no key fits."""
        ring = await self._rings.get(environment_id, max_age_seconds=_REFUSAL_SECONDS)
        return ring or KeyRing(environment_id, ())

    def known_key_ring(self, environment_id: str) -> KeyRing | None:
        """As `key_ring`, if it need not be read."""
        return self._rings.known(environment_id)

    def key_ring_known_until(self, environment_id: str) -> float:
        """When the keys of an environment are to be read again, in Unix seconds."""
        return self._rings.known_until(environment_id)

    async def environment_id(self, key: str) -> str | None:
        """Give the environment that a secret key authenticates, or None."""
        return await self._environments.get(key)

    def known_environment_id(self, key: str) -> str | None:
        """As `environment_id`, if it need not be read."""
        return self._environments.known(key)

    async def environment_name(self, environment_id: str) -> str:
        """Give what people call an environment; its id, if it is gone."""
        return await self._names.get(environment_id) or environment_id


def _drop_oldest(entries: OrderedDict[str, Any], limit: int) -> None:
    while len(entries) > limit:
        entries.popitem(last=False)
