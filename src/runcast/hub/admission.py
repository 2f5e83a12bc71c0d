"""Who may connect: as many of each environment, over all gateways, as it may have."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Mapping

from runcast.core.places import PlacePace, Places, Wish
from runcast.errors import GatewayError, TooManyConnections
from runcast.ports import PlaceStore

logger = logging.getLogger(__name__)


class Admission:
    """
    Gives connections their places, and asks the store for more when those at hand are used up.

    While the store does not answer the gateway counts alone, so that nobody is refused for that.

    Args:
        gateway: The id by which the store knows this gateway.
        limit: Connections of each environment; 0: no limit, and nobody is asked. So it is without
            a store.
    """

    def __init__(
        self, store: PlaceStore | None, gateway: str, limit: int, pace: PlacePace | None = None
    ) -> None:
        self.refused = 0
        self.failures = 0
        self._store = store
        self._gateway = gateway
        self._pace = pace or PlacePace()
        self.places = Places(0 if store is None else limit, self._pace)
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._stirred = asyncio.Event()

    @contextlib.asynccontextmanager
    async def entered(self, environment_id: str) -> AsyncIterator[None]:
        """
        Keep a place for somebody who is about to connect, for as long as the context lasts.

        Raises:
            TooManyConnections: There is none.
        """
        if not self.places.limit:
            yield
            return
        if not await self._take(environment_id):
            self.refused += 1
            raise TooManyConnections(
                f"This environment has as many connections as it may: {self.places.limit} at all "
                "gateways (RUNCAST_MAX_ENVIRONMENT_CONNECTIONS). Close some, or try later."
            )
        try:
            yield
        finally:
            self.left(environment_id)

    def enters_at_once(self, environment_id: str) -> bool:
        """As `entered`, from what is known; until `left`. False: enter, it may have to ask."""
        return not self.places.limit or self.places.take(environment_id, _now()) is True

    def connected(self, environment_id: str) -> None:
        """Count a connection, which has been let in."""
        if self.places.limit:
            self.places.take_anyway(environment_id)

    def left(self, environment_id: str) -> None:
        """A connection is over."""
        if self.places.limit and self.places.leave(environment_id):
            self._stirred.set()

    async def run(self) -> None:
        """Renew what is held, and give back what is not needed, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.look):
                    await self._stirred.wait()
                    await asyncio.sleep(self._pace.settle)
            self._stirred.clear()
            await self._renew()

    async def close(self) -> None:
        """Give all back, if somebody takes it: otherwise the leases end by themselves."""
        if self._asking:
            await asyncio.wait(set(self._asking.values()), timeout=self._pace.patience)
        await self._renew(every=True)

    async def _take(self, environment_id: str) -> bool:
        places = self.places
        if (allowed := places.take(environment_id, _now())) is not None:
            return allowed
        places.wait(environment_id, 1)
        try:
            while True:
                await self._answered(self._ask(environment_id))
                allowed = places.take(environment_id, _now())
                if allowed is not None:
                    return allowed
        finally:
            places.wait(environment_id, -1)

    async def _renew(self, *, every: bool = False) -> None:
        failures = self.failures
        if wishes := self.places.wishes(_now(), every=every):
            await self._answered(self._hold(wishes))
        if self.places.alone and not self._asking and self.failures == failures:
            self.places.alone = False
            logger.info("connections of an environment are counted with other gateways again")

    async def _answered(self, asking: "asyncio.Task[None]") -> None:
        """Wait for an answer, but not for long; it is taken whenever it comes."""
        done, _ = await asyncio.wait([asking], timeout=self._pace.patience)
        if not (done or self.places.alone):
            self._fail((), TimeoutError("no answer in time"))

    def _ask(self, environment_id: str) -> "asyncio.Task[None]":
        asking = self._asking.get(environment_id)
        if asking is None:
            asking = self._hold({environment_id: self.places.wish(environment_id, _now())})
        return asking

    def _hold(self, wishes: Mapping[str, Wish]) -> "asyncio.Task[None]":
        """Ask the store, in a task of its own: others may wait for what one has asked."""
        task = asyncio.create_task(self._exchange(wishes))
        self._asking.update(dict.fromkeys(wishes, task))
        return task

    async def _exchange(self, wishes: Mapping[str, Wish]) -> None:
        places = self.places
        assert self._store is not None
        try:
            held = await self._store.hold(
                self._gateway, wishes, limit=places.limit, lease_seconds=self._pace.lease
            )
            places.receive({name: (wishes[name], held[name]) for name in wishes}, _now())
        except Exception as error:
            self._fail(wishes, error)
        finally:
            for name in wishes:
                del self._asking[name]

    def _fail(self, names: Iterable[str], error: Exception) -> None:
        self.failures += 1
        if not self.places.alone:
            foreseen = isinstance(error, GatewayError | TimeoutError)
            logger.warning(
                "connections of an environment are counted by this gateway alone: %s",
                error if foreseen else type(error).__name__,
                exc_info=None if foreseen else error,
            )
        self.places.receive_failure(names)


def _now() -> float:
    return asyncio.get_running_loop().time()
