"""The seams between the gateway and what stands outside it: stores, the changefeed, the clock."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

from runcast.auth.grant import Grant
from runcast.auth.keys import KeyRing
from runcast.auth.revocation import NewRevocation, Revocation
from runcast.core.batch import Batch, NewBatch, StreamedItems
from runcast.core.bucket import Draw
from runcast.core.chunk import ChunkPage, NewChunks, StoredChunks, StreamMove, StreamName
from runcast.core.new_run import NewRun
from runcast.core.page import ChangePage as ChangePage, PageKey as PageKey, SnapshotPart
from runcast.core.places import Held, Wish
from runcast.core.position import Position
from runcast.core.rate import Rate
from runcast.core.relaying import Relaying
from runcast.core.run import Departure, Run, RunChange, RunFacets
from runcast.core.run_filter import RunFilter
from runcast.core.selector import Selector
from runcast.core.waitpoint import NewWaitpoint, Waitpoint, WaitpointFilter


class Clock(Protocol):
    """Time, as a value that tests can set."""

    def now(self) -> float:
        """Unix time in seconds."""
        ...


@dataclass(frozen=True, slots=True)
class RunPage:
    """One page of a run list, newest first; the keys are None where no more runs lie that way."""

    runs: tuple[Run, ...]
    older: PageKey | None
    newer: PageKey | None


@dataclass(frozen=True, slots=True)
class Triggered:
    """A run that a trigger created, or (``cached``) the one its idempotency key stands for."""

    run: Run
    cached: bool


# Given the locked rows (in the order asked for, unknown ids left out), says what to write:
# run id → column → value. Pure; whatever it raises undoes everything.
Decide = Callable[[Sequence[Run]], Mapping[str, Mapping[str, Any]]]


class RunReader(Protocol):
    """What subscriptions need from the store of runs."""

    async def look_up_runs(
        self, environment_id: str, run_ids: Sequence[str]
    ) -> Mapping[str, Run | None]:
        """
        The run of each id, or None where this environment has no such run.

        Ids may be left out where all are too large to be read at once, though never all of them.
        """
        ...

    async def read_snapshots(
        self, parts: Sequence[SnapshotPart]
    ) -> Mapping[SnapshotPart, ChangePage]:
        """
        A page for each part of a snapshot, all read at one position.

        A page of large rows may be shorter than its limit although more follow. Parts may be left
        out where all are too large to be read at once, though never all of them.
        """
        ...

    async def read_changes(
        self, selector: Selector, *, since: Position, after: PageKey | None, limit: int
    ) -> ChangePage:
        """
        One page of what became visible after ``since``, about runs that match or matched.

        Departures come with the first page.

        Raises:
            PositionLost: ``since`` cannot be continued from; start from a snapshot.
        """
        ...


class RunStore(RunReader, Protocol):
    """Runs and batches: reading, creating, and changing them under their row locks."""

    async def read_run(self, environment_id: str, run_id: str) -> Run | None:
        """The run, or None where this environment has no such run."""
        ...

    async def read_runs(self, environment_id: str, run_ids: Sequence[str]) -> list[Run]:
        """Those of the runs that exist, in the order asked for."""
        ...

    async def read_children(self, environment_id: str, run_id: str, *, limit: int) -> list[Run]:
        """Runs triggered by this run, oldest first."""
        ...

    async def read_seed_metadata(self, environment_id: str, run_id: str) -> str:
        """The metadata that a run began with, as JSON text of an object."""
        ...

    async def read_runs_with_object(self, environment_id: str, name: str) -> list[Run]:
        """Runs that keep their payload or output in the object store under this name; not all."""
        ...

    async def read_descendant_ids(self, environment_id: str, run_id: str) -> list[str]:
        """Ids of all runs below this run that are not finished."""
        ...

    async def list_runs(
        self,
        run_filter: RunFilter,
        *,
        older_than: PageKey | None = None,
        newer_than: PageKey | None = None,
        limit: int,
    ) -> RunPage:
        """One page of the runs that pass the filter, newest first, in either direction."""
        ...

    async def create_runs(self, new_runs: Sequence[NewRun]) -> list[Triggered]:
        """
        Create runs in one transaction, honouring idempotency and debounce keys, one-time tokens,
        and requests that were answered before.

        Raises:
            OneTimeTokenSpent: The token was used before; nothing was created.
            NotFound: A parent run does not exist in the environment.
        """
        ...

    async def update_runs(
        self,
        environment_id: str,
        run_ids: Sequence[str],
        decide: Decide,
        *,
        request: str | None = None,
    ) -> list[Run]:
        """
        Lock the runs, ask ``decide`` what to write, write it, and return the rows as they are then.

        Atomic against concurrent writers; locks are taken in id order. ``request`` names the
        request that asks for this, if it is to have its effect only once.
        """
        ...

    async def reset_idempotency_key(self, environment_id: str, task: str, key: str) -> bool:
        """Let a key stand for no run any more; tell whether it stood for one."""
        ...

    async def create_batch(self, new_batch: NewBatch, new_runs: Sequence[NewRun]) -> Batch:
        """Create a batch and its runs in one transaction (see `create_runs`)."""
        ...

    async def read_batch(self, environment_id: str, batch_id: str) -> Batch | None:
        """The batch with the ids of its runs, or None."""
        ...

    async def open_batch(self, new_batch: NewBatch, run_count: int) -> Batch:
        """Create a batch that is PENDING until it was streamed this many items."""
        ...

    async def add_items(
        self, environment_id: str, batch_id: str, items: Sequence[NewRun]
    ) -> int | None:
        """
        Keep items of a batch, once for each ``batch_index``, and tell how many were new.

        None: the batch takes no items any more.
        """
        ...

    async def seal_batch(self, environment_id: str, batch_id: str) -> StreamedItems:
        """Seal a batch that has all its items, and tell how far it is."""
        ...

    async def create_next_runs(self, batch_id: str) -> bool:
        """
        Turn the next few items of a sealed batch into runs, and tell whether there are more.

        A batch that another gateway is at work on is left to it.
        """
        ...


class ChunkLog(Protocol):
    """Streams of chunks: idempotent appends, durable when answered, and reads at any offset."""

    on_append: Callable[[StreamName, StoredChunks], None]
    """Told of the chunks that were appended here, in order, as soon as they are durable."""

    async def register(self, name: StreamName) -> None:
        """
        Make a stream known, also on its run's row unless it takes input.

        Raises:
            NotFound: There is no such run.
            TooManyStreams: The run has as many streams as it may.
        """
        ...

    async def append(self, name: StreamName, chunks: NewChunks) -> int:
        """
        Store chunks, in order, and return how many were new; they are durable then.

        Raises:
            NotFound: The run is gone.
            StreamClosed: The stream was closed.
            StreamFull: It has as many bytes as it may; nothing of this call was stored.
            StreamLost: What was stored before is gone, and nothing of this call was stored.
            BackendError: Whether they are stored is not known; append them again.
        """
        ...

    async def last_index(self, name: StreamName, writer: str) -> int:
        """The highest index that is stored of a writer; -1 if none is."""
        ...

    async def hold_open(self, name: StreamName, presence: str, *, connected: bool) -> None:
        """
        Say that a connection of a writer is open, which holds for a while, or that it ended.

        ``presence`` names the connection: a writer may have a new one before its old one is found
        dead.
        """
        ...

    async def close(self, name: StreamName) -> None:
        """Let no more chunks come; closing again changes nothing."""
        ...

    def follow(self, name: StreamName) -> None:
        """Let the hub be told of what happens to a stream; what happened before, it reads."""
        ...

    def unfollow(self, name: StreamName) -> None:
        """Nobody here reads the stream any more."""
        ...

    async def read(
        self, name: StreamName, offset: int, *, max_chunks: int, max_bytes: int
    ) -> ChunkPage:
        """
        Read chunks from an offset on, and how far the stream is; empty if there is no stream.

        A page holds at least one chunk if there is one, otherwise no more than ``max_bytes``.
        """
        ...


class StreamRegistrar(Protocol):
    """Which streams there are: a run is locked while its streams are counted."""

    async def register(self, name: StreamName, *, renew: bool = False) -> int:
        """
        Make a stream known, also on its run's row unless it takes input; gives its number.

        ``renew`` says that it is written to, so that it does not become old.

        Raises:
            NotFound: There is no such run.
            TooManyStreams: The run has as many streams as it may.
        """
        ...


# What an address of an object is good for.
Use: TypeAlias = Literal["GET", "PUT"]


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: its size in bytes, and its content in pieces, to be taken once."""

    content_type: str
    size: int
    pieces: AsyncIterator[bytes]


class ObjectStore(Protocol):
    """What is too large for the database: named objects, each environment with its own names."""

    async def write(
        self, environment_id: str, name: str, content_type: str, pieces: AsyncIterable[bytes]
    ) -> None:
        """
        Store an object, or put it in the place of an older one; all of it or nothing.

        Whatever ``pieces`` raises comes out, and nothing is stored.

        Raises:
            BackendError: It could not be stored.
        """
        ...

    def open(
        self, environment_id: str, name: str
    ) -> AbstractAsyncContextManager[StoredObject | None]:
        """
        Read an object while the context lasts; None where there is none of this name.

        Raises:
            BackendError: It could not be read.
        """
        ...

    async def delete(self, environment_id: str, name: str) -> None:
        """
        Delete an object; that there is none is fine.

        Raises:
            BackendError: It could not be deleted, or that is not known.
        """
        ...

    async def address(self, use: Use, environment_id: str, name: str, *, now: float) -> str | None:
        """
        Give a URL at which the store itself lets whoever has it read or store an object.

        It is good for 15 to 20 minutes, and stays the same for 5. None: ask a gateway instead.

        Raises:
            BackendError: It could not be signed.
        """
        ...


class ObjectLedger(Protocol):
    """Which objects there may be, so that those which nothing refers to are deleted."""

    async def expect(self, environment_id: str, name: str) -> None:
        """Note that an object may be stored from now on."""
        ...


@dataclass(frozen=True, slots=True)
class WaitpointPage:
    """One page of a list, newest first; the keys are None where there is no more that way."""

    waitpoints: tuple[Waitpoint, ...]
    older: PageKey | None
    newer: PageKey | None


class WaitpointStore(Protocol):
    """Waitpoints. ``now`` is the time by which it is decided what is over."""

    async def create(self, new: NewWaitpoint, *, now: datetime) -> tuple[Waitpoint, bool]:
        """Create a waitpoint, or find that of its idempotency key; tells whether it was found."""
        ...

    async def read(self, waitpoint_id: str) -> Waitpoint | None:
        """A waitpoint of whichever environment; None: there is none."""
        ...

    async def list_page(
        self,
        wanted: WaitpointFilter,
        *,
        older_than: PageKey | None,
        newer_than: PageKey | None,
        limit: int,
        now: datetime,
    ) -> WaitpointPage:
        """One page of what passes a filter; at most one of both keys is given."""
        ...

    async def complete(
        self, waitpoint_id: str, output: str | None, output_type: str, *, now: datetime
    ) -> bool:
        """
        Complete a waitpoint that is still waited for; tells whether it was.

        Runs that wait for it execute again.
        """
        ...

    async def read_awaiting(self, run_id: str, key: str, *, now: datetime) -> list[Waitpoint]:
        """The waitpoints that input of a run under a key may complete."""
        ...

    async def let_wait(
        self, environment_id: str, run_id: str, waitpoint_id: str, *, now: datetime
    ) -> None:
        """
        Let a run wait for a waitpoint, unless that is over.

        Raises:
            NotFound: There is no such run or waitpoint in the environment.
            IllegalTransition: The run is finished.
        """
        ...


class RateLimiter(Protocol):
    """Buckets of permits that all gateways share; a bucket that nobody drew from is full."""

    async def draw(self, bucket: bytes, wanted: int, rate: Rate) -> Draw:
        """
        Draw as many permits as are wanted, at most a burst, or all that are there.

        By the limiter's own clock: those of the gateways may differ.

        Raises:
            BackendError: Whether they were drawn is not known.
        """
        ...


class PlaceStore(Protocol):
    """How many connections each environment has, by gateways that hold places for a lease."""

    async def hold(
        self, gateway: str, wishes: Mapping[str, Wish], *, limit: int, lease_seconds: float
    ) -> Mapping[str, Held]:
        """
        Hold places of environments for a gateway, in place of what it held; see `places.hold`.

        By the store's own clock; what is not renewed within the lease is free again.

        Raises:
            BackendError: Whether they are held is not known.
        """
        ...


class RevocationStore(Protocol):
    """Tokens that are taken back; every gateway hears of each within a second."""

    async def revoke(self, new: NewRevocation) -> Revocation:
        """
        Take tokens back from now on, on all gateways; once more is the same revocation.

        Raises:
            TooManyRevocations: The environment has as many as it may.
        """
        ...

    async def list_page(
        self, environment_id: str, *, older_than: PageKey | None, limit: int
    ) -> tuple[list[Revocation], PageKey | None]:
        """One page, newest first, and where the next one begins; without those of keys."""
        ...

    async def lift(self, environment_id: str, revocation_id: str) -> Revocation | None:
        """Let a revocation count no more; None: there is none of this id."""
        ...


class Renewals(Protocol):
    """The way to connections of other gateways that get a newer token."""

    async def forward(self, gateway: str, connection_id: str, grant: Grant) -> str | None:
        """
        Let a gateway put a grant in the place of a connection's.

        Gives what it says to that, once it is done; None: it has not answered within two seconds.

        Raises:
            BackendError: It cannot be asked.
        """
        ...


class KeyStore(Protocol):
    """Environments and their keys."""

    async def read_key_ring(self, environment_id: str) -> KeyRing | None:
        """The keys of an environment, retired ones included; None: no such environment."""
        ...

    async def read_environment_name(self, environment_id: str) -> str | None:
        """What people call an environment; None: no such environment."""
        ...

    async def read_environment_id(self, key: str) -> str | None:
        """The environment that a secret key authenticates now, or None."""
        ...


class ChangeSink(Protocol):
    """Who takes the changes that a changefeed finds: the hub."""

    def wants(self, facets: RunFacets, departures: Sequence[Departure]) -> frozenset[str] | None:
        """
        Tell what of a run's `LARGE_COLUMNS` is to be read, by all who may be waiting for it.

        None: nobody is, so its row is not read at all. Who comes later may want more.
        """
        ...

    def publish(self, changes: Sequence[RunChange], position: Position) -> None:
        """Hand over all wanted changes up to ``position``; never blocks and never raises."""
        ...

    def streams_moved(self, moves: Sequence[StreamMove]) -> bool:
        """
        Tell which streams grew or were closed; never blocks and never raises.

        Returns:
            Whether somebody reads one of them.
        """
        ...


class WindowRelay(Protocol):
    """The way between the tailers of several gateways, one of which reads for all."""

    machine: Relaying
    on_news: Callable[[], None]
    """Called when the machine was told something."""

    def stir(self) -> None:
        """There may be something to say."""
        ...
