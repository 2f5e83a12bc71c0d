"""Fan-out within one process: which subscribers see a change, and who is connected."""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence

from runcast.auth.grant import Grant
from runcast.auth.revocation import RevocationBook
from runcast.core.chunk import StoredChunks, StreamMove, StreamName
from runcast.core.frame import RunFrame, StateFrame
from runcast.core.histogram import Histogram
from runcast.core.limits import Limits
from runcast.core.places import PlacePace
from runcast.core.position import Position
from runcast.core.run import LARGE_COLUMNS, Departure, Run, RunChange, RunFacets
from runcast.core.selector import index_keys
from runcast.errors import BackendError, Draining, GatewayFull
from runcast.hub.admission import Admission
from runcast.hub.audience import Audience
from runcast.hub.counts import Counts
from runcast.hub.form import AudienceKey
from runcast.hub.seams import CatchingUp, Link, Receiver
from runcast.hub.session import catch_up
from runcast.hub.shared_reads import SharedReads
from runcast.hub.tail import Tail
from runcast.hub.wheel import Wheel
from runcast.ports import ChunkLog, Clock, PlaceStore, RunReader

logger = logging.getLogger(__name__)

_DRAINED_A_SECOND = 500
_LAST_BYTES_SECONDS = 1.0
_LOOKED_AT_A_TURN = 1_000  # connections, when grants were revoked


class Hub:
    """
    Knows every subscriber of this process and hands each the changes of its view.

    `publish` never waits: a subscriber that cannot take more keeps the newest state of a bounded
    number of runs, or only its position, and reads what it missed from the store later.
    """

    def __init__(
        self,
        runs: RunReader,
        chunks: ChunkLog,
        clock: Clock,
        limits: Limits,
        places: PlaceStore | None = None,
        place_pace: PlacePace | None = None,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.counts = Counts()
        self.revocations = RevocationBook()
        self.connections: set[Link] = set()
        self.id = secrets.token_hex(6)  # ids of its connections begin with it
        self.admission = Admission(places, self.id, limits.max_environment_connections, place_pace)
        self._named: dict[str, Link] = {}
        self.draining = False
        self._leaving: set[Link] = set()  # ended by us, their last bytes not yet taken
        self._chunks = chunks
        self._tails: dict[StreamName, Tail] = {}
        self._position: Position | None = None
        self._cursor: tuple[Position, str] | None = None
        self._handing_over = False  # a window is on its way that ends beyond the position
        self._audiences: dict[AudienceKey, Audience] = {}
        self._index: dict[tuple[str, str, str], dict[AudienceKey, Audience]] = {}
        self._sessions: set[asyncio.Task[None]] = set()
        self._catch_ups = asyncio.Semaphore(limits.max_concurrent_catch_ups)
        self.reads = SharedReads(runs, self._catch_ups)
        self._wheel = Wheel(clock)
        self._someone_left = asyncio.Event()
        self._began = asyncio.Event()
        self._end_calls: dict[Callable[[], None], Grant] = {}
        self._revoking: asyncio.Task[None] | None = None
        self._revoke_again = False

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send heartbeats and to end what expires."""
        self._wheel.start(_timer_failed)

    async def drain(self) -> None:
        """
        Ask every client to reconnect, spread over the drain time, and wait until they are gone.

        Bounded: whoever has not gone a little after the drain time is dropped.
        """
        self.draining = True
        for call in list(self._end_calls):
            call()
        loop = asyncio.get_running_loop()
        # A few go at once; many are spread, so that those who take them over are not flooded.
        spread = min(self.limits.drain_seconds, len(self.connections) / _DRAINED_A_SECOND)
        for connection in list(self.connections):
            delay = random.uniform(0, spread)
            loop.call_later(delay, connection.drain, _reconnect_delay_ms())
        deadline = loop.time() + spread + _LAST_BYTES_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._deserted()
        for connection in [*self.connections, *self._leaving]:
            connection.abort("drain")
        self._wheel.stop()
        for session in list(self._sessions):
            session.cancel()
        if self._revoking is not None:
            self._revoking.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await self.reads.close()

    @contextlib.contextmanager
    def told_of_end(self, grant: Grant, call: Callable[[], None]) -> Iterator[None]:
        """
        Have this called when a drain begins or the grant is revoked.

        For those that are no connections of the hub; in the end they ask which of it is so.
        """
        self._end_calls[call] = grant
        try:
            yield
        finally:
            del self._end_calls[call]

    @contextlib.contextmanager
    def sent_elsewhere(self) -> Iterator[None]:
        """
        Let what is given up because a drain cannot wait for it, and so cancelled, end in an error.

        Raises:
            Draining: It was.
        """
        try:
            yield
        except asyncio.CancelledError:
            if not self.draining:
                raise
            raise Draining("This gateway is going away; ask again to reach another one.") from None

    def end_revoked(self) -> None:
        """End all whose grants are revoked by now; soon, and some in each turn of the loop."""
        self._revoke_again = True
        if self._revoking is None:
            self._revoking = asyncio.get_running_loop().create_task(self._end_revoked())

    async def _end_revoked(self) -> None:
        try:
            while self._revoke_again:
                self._revoke_again = False
                now = self.clock.now()
                for call, grant in list(self._end_calls.items()):
                    if self.revocations.revokes(grant, now):
                        call()
                for looked_at, connection in enumerate(list(self.connections), start=1):
                    if self.revocations.revokes(connection.grant, now):
                        connection.revoke()
                    if looked_at % _LOOKED_AT_A_TURN == 0:
                        await asyncio.sleep(0)
        finally:
            self._revoking = None

    async def _deserted(self) -> None:
        """Wait until the last connection is gone."""
        while self.connections or self._leaving:
            self._someone_left.clear()
            await self._someone_left.wait()

    # -- the changefeed's side ------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """
        Where the changefeed stands.

        Raises:
            BackendError: It has not reached the database yet.
        """
        if self._position is None:
            raise BackendError("The gateway has not reached its database yet; try again soon.")
        return self._position

    @property
    def following(self) -> bool:
        """Whether the changefeed has begun."""
        return self._position is not None

    def is_exactly_at(self, position: Position) -> bool:
        """
        Tell whether whoever joins now and has seen all up to here will miss nothing.

        Not so while a window is handed over: what nobody wanted of it was passed over.
        """
        return self._position == position and not self._handing_over

    def cursor_of(self, position: Position) -> str:
        """The position as text, kept while the feed stands there."""
        if self._cursor is None or self._cursor[0] is not position:
            self._cursor = (position, position.cursor())
        return self._cursor[1]

    def wants(self, facets: RunFacets, departures: Sequence[Departure]) -> frozenset[str] | None:
        """Tell what is read for those who subscribed to what this run is, or just was."""
        self._handing_over = True
        wanted: frozenset[str] | None = None
        for each in (facets, *(departure.facets for departure in departures)):
            for index_key in index_keys(each):
                for key in self._index.get(index_key, ()):
                    wanted = key.large_columns if wanted is None else wanted | key.large_columns
                    if wanted == LARGE_COLUMNS:
                        return wanted
        return wanted

    def begin(self, position: Position) -> None:
        """The changefeed starts here: subscribers come with snapshots of their own."""
        self._position = position
        self._began.set()

    async def started(self) -> None:
        """Wait until the changefeed has begun."""
        await self._began.wait()

    def publish(self, changes: Sequence[RunChange], position: Position) -> None:
        """Hand a window of changes to all who may see them; the feed stands at ``position`` now."""
        if changes:
            # Nobody whose time is over gets them, however long the loop could not see to that. And
            # it is now that positions are told: of the new one it would be too soon.
            self._wheel.keep_up(_timer_failed)
        before = self._position or position
        if position != before:
            self._handing_over = False
        self._position = position
        self.counts.windows += 1
        if not changes:
            return
        self.counts.changes += len(changes)
        deliveries: dict[AudienceKey, tuple[Audience, list[StateFrame], list[RunChange]]] = {}
        for change in changes:
            frame = RunFrame(change.run) if change.run is not None else None
            for key, audience in self._candidates(change):
                verdict = key.view.judge(change, frame)
                if verdict is not None:
                    _, frames, told = deliveries.setdefault(key, (audience, [], []))
                    frames.append(verdict)
                    told.append(change)
        cursor = self.cursor_of(position)
        counts = self.counts
        in_time: dict[str, dict[str, RunChange]] = {}  # by kind of connection and id of run
        for audience, frames, told in deliveries.values():
            if not audience.subscribers:
                continue  # what another audience was told ended the last connection of this one
            kind = audience.kind
            try:
                if audience.deliver(frames, before, position, cursor, counts):
                    in_time.setdefault(kind, {}).update((each.facets.id, each) for each in told)
            except Exception:
                logger.exception("a change could not be handed to an audience")
                # Nobody knows who of them got it: they come back with their last cursors.
                for receiver in list(audience.subscribers):
                    receiver.connection.abort("error")
        self._observe_lag(in_time)

    def _observe_lag(self, in_time: Mapping[str, Mapping[str, RunChange]]) -> None:
        """Note how long each change took to those who keep up."""
        now = asyncio.get_running_loop().time()
        for kind, changes in in_time.items():
            lag = self.counts.lag[kind]
            for change in changes.values():
                if change.since is not None:
                    lag.observe(max(now - change.since, 0.0))  # clocks may be set back

    def restart(self, position: Position, reason: str, message: str) -> None:
        """The changefeed lost its place: everybody begins again with a snapshot."""
        self._handing_over = False
        self._position = position
        for connection in list(self.connections):
            for subscriber in list(connection.subscribers.values()):
                self.counts.resets[reason] += 1
                subscriber.receive_lost(reason, message)

    def streams_moved(self, moves: Sequence[StreamMove]) -> bool:
        """Let those who read these streams read on; tells whether there are any."""
        is_read = False
        for move in moves:
            tail = self._tails.get(move.name)
            if tail is not None:
                tail.moved(move)
                is_read = True
        return is_read

    def chunks_appended(self, name: StreamName, stored: StoredChunks) -> None:
        """
        Hand chunks that this gateway has just stored to those who read their stream live.

        They need not be read again; where others write to the stream too, or somebody is behind,
        the changefeed tells the rest.
        """
        self.counts.chunks_appended += stored.count
        self.counts.chunk_bytes_appended += stored.size
        tail = self._tails.get(name)
        if tail is None:
            return
        try:
            tail.appended(stored.chunks())
        except Exception:
            logger.exception("chunks could not be handed to their readers")
            tail.abort()  # nobody knows who of them got it: they come back with their last cursors

    def tail_of(self, name: StreamName) -> Tail:
        """What a reader of this stream joins."""
        return self._tails.get(name) or Tail(
            name, self._chunks, self.limits, self._tails, self._catch_ups, self.counts
        )

    async def read_run(self, environment_id: str, run_id: str) -> Run | None:
        """The run as it is now, whatever the changefeed has told."""
        return await self.reads.read_run(environment_id, run_id)

    def _candidates(self, change: RunChange) -> list[tuple[AudienceKey, Audience]]:
        keys = dict.fromkeys(index_keys(change.run.facets if change.run else change.facets))
        for departure in change.departures:
            keys.update(dict.fromkeys(index_keys(departure.facets)))
        return [
            item
            for key in keys
            if (audiences := self._index.get(key))
            for item in audiences.items()
        ]

    # -- the connections' side ------------------------------------------------------------------

    def admit(self) -> None:
        """
        Check that one more connection may come.

        Raises:
            Draining: This gateway is going away.
            GatewayFull: It holds as many as it may.
            BackendError: It has not reached its database yet.
        """
        if self.draining:
            raise Draining("This gateway is going away; reconnect to reach another one.")
        if self._is_full:
            self.counts.refused += 1
            raise GatewayFull("This gateway holds as many connections as it may; try another one.")
        assert self.position is not None

    @property
    def admits(self) -> bool:
        """Whether `admit` lets one more connection come."""
        return self.following and not self.draining and not self._is_full

    @property
    def _is_full(self) -> bool:
        return len(self.connections) >= self.limits.max_connections

    def connect(self, connection: Link) -> None:
        """Look after a connection until it closes."""
        now = self.clock.now()
        self.connections.add(connection)
        self.admission.connected(connection.grant.environment_id)
        self.counts.connections[connection.kind, connection.outlet.tier] += 1
        self.look_at(connection, connection.next_due(now))
        if self.revocations.revokes(connection.grant, now):  # since it was authenticated
            connection.revoke()
        elif self.draining:  # since it was admitted
            connection.drain(_reconnect_delay_ms())

    def name(self, connection: Link) -> str:
        """Give the connection an id, which nobody can guess and which names this gateway."""
        name = f"{self.id}-{secrets.token_urlsafe(16)}"
        self._named[name] = connection
        return name

    def named(self, name: str) -> Link | None:
        """Find the connection of this id, while it is open."""
        return self._named.get(name)

    def look_at(self, connection: Link, at: float) -> None:
        """Let the connection's `tick` be called at this time, and on from there."""
        connection.due = at
        self._wheel.add(connection, at)

    def closing(self, connection: Link, reason: str) -> None:
        """A connection is over, its subscribers left already; its outlet may still have bytes."""
        self.connections.discard(connection)
        self.admission.left(connection.grant.environment_id)
        self._leaving.add(connection)
        if connection.id is not None:
            self._named.pop(connection.id, None)
        self.counts.closed[reason] += 1
        self.counts.connections[connection.kind, connection.outlet.tier] -= 1
        if connection.kind != "poll":
            logger.info(
                "%s ended: %s",
                connection.kind,
                reason,
                extra={"request": connection.request_id, **connection.figures},
            )

    def closed(self, connection: Link) -> None:
        """The outlet of a connection is gone."""
        self._leaving.discard(connection)
        self._someone_left.set()

    def watch(self, receiver: Receiver) -> None:
        """Let a receiver have changes from now on."""
        key = receiver.key
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(key)
            self._index.setdefault(key.view.selector.index_key, {})[key] = audience
        audience.subscribers[receiver] = None

    def unwatch(self, receiver: Receiver) -> None:
        """Let a receiver have no more changes."""
        key = receiver.key
        audience = self._audiences.get(key)
        if audience is None or receiver not in audience.subscribers:
            return
        audience.leave(receiver)
        if not audience.subscribers:
            del self._audiences[key]
            filed = self._index[key.view.selector.index_key]
            del filed[key]
            if not filed:
                del self._index[key.view.selector.index_key]

    def write_past(self, receiver: Receiver, write: Callable[[bytes], None] | None) -> None:
        """Write changes to a receiver without asking it from now on; None: ask it again."""
        audience = self._audiences.get(receiver.key)
        if audience is not None and receiver in audience.subscribers:
            audience.write_past(receiver, write)

    def start_session(self, subscriber: CatchingUp) -> None:
        """Read what the subscriber's machine asks for, in a task of its own, until it is live."""
        if subscriber.session is not None:
            return
        self.counts.catch_ups += 1
        session = asyncio.get_running_loop().create_task(catch_up(subscriber, self.reads))
        subscriber.session = session
        self._sessions.add(session)

        def over(task: asyncio.Task[None]) -> None:
            self._sessions.discard(task)
            subscriber.session = None
            if task.cancelled():
                return  # its subscriber has left, and must neither write nor begin again
            if (error := task.exception()) is not None:
                logger.error(
                    "a subscription could not be brought up to date",
                    exc_info=error,
                    extra={"request": subscriber.connection.request_id},
                )
                subscriber.connection.abort("error")
            else:
                subscriber.flush()

        session.add_done_callback(over)

    @property
    def subscriber_count(self) -> int:
        """How many subscriptions are open."""
        return self.counts.subscriptions.total()

    @property
    def loop_lag(self) -> Histogram:
        """How late the event loop was for a timer that comes four times a second."""
        return self._wheel.lag


def _reconnect_delay_ms() -> int:
    """When one who is sent away comes back: at a time of its own."""
    return int(random.uniform(0.1, 1.0) * 2000)


def _timer_failed(error: Exception) -> None:
    logger.error("a connection's timer failed", exc_info=error)
