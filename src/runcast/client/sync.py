"""
``Client``: the client for plain programs, with the names and parameters of `AsyncClient`.

It holds no logic: everything runs in the asynchronous client, in a thread of its own.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from runcast.client.aio import AsyncClient
from runcast.client.batches import Batches
from runcast.client.bearer import TokenFactory
from runcast.client.errors import ClientClosed
from runcast.client.events import RunEvent
from runcast.client.feeds import TransportName
from runcast.client.listing import Listing, Page
from runcast.client.loop_thread import LoopThread
from runcast.client.metadata_buffer import Operation
from runcast.client.revocation import Revocation
from runcast.client.run import Run
from runcast.client.run_metadata import MetadataChanges, RunMetadata
from runcast.client.run_writer import RunWriter
from runcast.client.runs import Runs
from runcast.client.stream_feed import Part, StreamEvent
from runcast.client.stream_reading import StreamReading
from runcast.client.stream_writer import StreamWriter, Target
from runcast.client.streams import Streams
from runcast.client.subscription import Subscription
from runcast.client.tasks import Tasks

P = ParamSpec("P")
T = TypeVar("T")
Inner = TypeVar("Inner")
Outer = TypeVar("Outer")


class Client:
    """
    Everything that a gateway offers, for plain programs; see `AsyncClient` for the parameters.

    May be shared by threads. Iterators block until there is something; leaving a loop over one
    early ends it when its iterator is closed or collected.
    """

    def __init__(
        self,
        base_url: str | None = None,
        secret_key: str | None = None,
        token: str | TokenFactory | None = None,
        *,
        environment_id: str | None = None,
        transport: TransportName | None = None,
    ) -> None:
        self._client = AsyncClient(
            base_url, secret_key, token, environment_id=environment_id, transport=transport
        )
        self._thread = LoopThread()
        self.tasks = SyncTasks(self._client.tasks, self._thread)
        self.runs = SyncRuns(self._client.runs, self._thread)
        self.batches = SyncBatches(self._client.batches, self._thread)
        self.streams = SyncStreams(self._client.streams, self._thread)
        self.create_public_token = self._thread.calling(self._client.create_public_token)
        self.revoke_tokens = self._thread.calling(self._client.revoke_tokens)
        self.lift_revocation = self._thread.calling(self._client.lift_revocation)

    def revocations(self) -> Iterator[Revocation]:
        """As `PublicTokens.revocations`."""
        return self._thread.iterating(self._client.revocations())

    def close(self) -> None:
        """Close all connections and end the thread; subscriptions end."""
        with contextlib.suppress(ClientClosed):  # it may be closed twice
            self._thread.run(self._client.close())
        self._thread.stop()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SyncTasks:
    """`Tasks` for plain programs."""

    def __init__(self, tasks: Tasks, thread: LoopThread) -> None:
        self.trigger = thread.calling(tasks.trigger)
        self.batch_trigger = thread.calling(tasks.batch_trigger)


class SyncBatches:
    """`Batches` for plain programs."""

    def __init__(self, batches: Batches, thread: LoopThread) -> None:
        self.retrieve = thread.calling(batches.retrieve)


class SyncRuns:
    """`Runs` for plain programs."""

    def __init__(self, runs: Runs, thread: LoopThread) -> None:
        self.retrieve = thread.calling(runs.retrieve)
        self.list = _wrapping(runs.list, SyncListing, thread)
        self.cancel = thread.calling(runs.cancel)
        self.replay = thread.calling(runs.replay)
        self.reschedule = thread.calling(runs.reschedule)
        self.reset_idempotency_key = thread.calling(runs.reset_idempotency_key)
        self.update = thread.calling(runs.update)
        self.add_tags = thread.calling(runs.add_tags)
        self.subscribe = _wrapping(runs.subscribe, SyncSubscription, thread)
        self.subscribe_tags = _wrapping(runs.subscribe_tags, SyncSubscription, thread)
        self.subscribe_task = _wrapping(runs.subscribe_task, SyncSubscription, thread)
        self.subscribe_batch = _wrapping(runs.subscribe_batch, SyncSubscription, thread)
        self.subscribe_all = _wrapping(runs.subscribe_all, SyncSubscription, thread)
        self.start = _wrapping(runs.start, SyncRunWriter, thread)
        self.take = _wrapping(runs.take, SyncRunWriter, thread)


class SyncStreams:
    """`Streams` for plain programs."""

    def __init__(self, streams: Streams, thread: LoopThread) -> None:
        self.read = _wrapping(streams.read, SyncStreamReading, thread)


class _Wrapper(Generic[Inner]):
    def __init__(self, inner: Inner, thread: LoopThread) -> None:
        self._inner = inner
        self._thread = thread


class SyncListing(_Wrapper[Listing]):
    """`Listing` for plain programs."""

    def __iter__(self) -> Iterator[Run]:
        return self._thread.iterating(self._inner)

    def page(self, *, after: str | None = None, before: str | None = None) -> Page:
        """As `Listing.page`."""
        return self._thread.run(self._inner.page(after=after, before=before))

    def pages(self) -> Iterator[Page]:
        """As `Listing.pages`."""
        return self._thread.iterating(self._inner.pages())


class SyncSubscription(_Wrapper[Subscription]):
    """`Subscription` for plain programs."""

    @property
    def cursor(self) -> str | None:
        """As `Subscription.cursor`."""
        return self._inner.cursor

    def __iter__(self) -> Iterator[Run]:
        return self._thread.iterating(self._inner)

    def events(self) -> Iterator[RunEvent]:
        """As `Subscription.events`."""
        return self._thread.iterating(self._inner.events())


class SyncStreamReading(_Wrapper[StreamReading]):
    """`StreamReading` for plain programs."""

    @property
    def next_offset(self) -> int | None:
        """As `StreamReading.next_offset`."""
        return self._inner.next_offset

    def __iter__(self) -> Iterator[Part]:
        return self._thread.iterating(self._inner)

    def events(self) -> Iterator[StreamEvent]:
        """As `StreamReading.events`."""
        return self._thread.iterating(self._inner.events())

    def text(self) -> str:
        """As `StreamReading.text`."""
        return self._thread.run(self._inner.text())


class SyncStreamWriter(_Wrapper[StreamWriter]):
    """`StreamWriter` for plain programs."""

    def write(self, value: Any) -> None:
        """As `StreamWriter.write`."""
        self._thread.run(self._inner.write(value))

    def resume(self) -> int:
        """As `StreamWriter.resume`."""
        return self._thread.run(self._inner.resume())

    def flush(self) -> None:
        """As `StreamWriter.flush`."""
        self._thread.run(self._inner.flush())

    def close(self) -> None:
        """As `StreamWriter.close`."""
        self._thread.run(self._inner.close())

    def __enter__(self) -> "SyncStreamWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SyncRunWriter(_Wrapper[RunWriter]):
    """`RunWriter` for plain programs: ``with client.runs.start("chat") as run``."""

    @property
    def run(self) -> Run:
        """As `RunWriter.run`."""
        return self._inner.run

    @property
    def id(self) -> str:
        """As `RunWriter.id`."""
        return self._inner.id

    @property
    def payload(self) -> Any:
        """As `RunWriter.payload`."""
        return self._inner.payload

    @property
    def public_access_token(self) -> str:
        """As `RunWriter.public_access_token`."""
        return self._inner.public_access_token

    @property
    def metadata(self) -> "SyncRunMetadata":
        """As `RunWriter.metadata`."""
        return SyncRunMetadata(self._inner.metadata, self._thread)

    def __enter__(self) -> "SyncRunWriter":
        self._thread.run(self._inner.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.run(self._inner.__aexit__(kind, error, trace))

    def finish(self, output: Any = None) -> None:
        """As `RunWriter.finish`."""
        self._thread.run(self._inner.finish(output))

    def fail(self, error: BaseException | str) -> None:
        """As `RunWriter.fail`."""
        self._thread.run(self._inner.fail(error))

    def writer(
        self, key: str, *, name: str | None = None, target: Target = "self"
    ) -> SyncStreamWriter:
        """As `RunWriter.writer`."""

        async def opened() -> StreamWriter:
            return self._inner.writer(key, name=name, target=target)

        return SyncStreamWriter(self._thread.run(opened()), self._thread)

    def stream(
        self,
        key: str,
        source: Iterable[T],
        *,
        name: str | None = None,
        target: Target = "self",
    ) -> Iterator[T]:
        """As `RunWriter.stream`; the source is iterated in the caller's thread."""
        with self.writer(key, name=name, target=target) as writer:
            for chunk in source:
                writer.write(chunk)
                yield chunk

    def pipe(
        self,
        key: str,
        source: Iterable[Any],
        *,
        name: str | None = None,
        target: Target = "self",
    ) -> int:
        """As `RunWriter.pipe`."""
        return sum(1 for _ in self.stream(key, source, name=name, target=target))

    def append(self, key: str, text: str, *, target: Target = "self") -> None:
        """As `RunWriter.append`."""
        self._thread.run(self._inner.append(key, text, target=target))

    def close_stream(self, key: str, *, target: Target = "self") -> None:
        """As `RunWriter.close_stream`."""
        self._thread.run(self._inner.close_stream(key, target=target))

    def add_tags(self, *tags: str) -> None:
        """As `RunWriter.add_tags`."""
        self._thread.run(self._inner.add_tags(*tags))


class SyncRunMetadata(MetadataChanges):
    """`RunMetadata` for plain programs."""

    def __init__(self, inner: RunMetadata, thread: LoopThread) -> None:
        super().__init__(inner.lock)
        self._inner = inner
        self._thread = thread
        self.parent = inner.parent
        self.root = inner.root

    def current(self) -> dict[str, Any]:
        """As `RunMetadata.current`."""
        return self._inner.current()

    def get(self, key: str, default: Any = None) -> Any:
        """As `RunMetadata.get`."""
        return self._inner.get(key, default)

    def flush(self) -> None:
        """As `RunMetadata.flush`."""
        self._thread.run(self._inner.flush())

    def add(self, operation: Operation) -> Self:
        """Everything is collected in one place."""
        self._inner.add(operation)
        return self


def _wrapping(
    method: Callable[P, Inner], wrapper: Callable[[Inner, LoopThread], Outer], thread: LoopThread
) -> Callable[P, Outer]:
    """Make a function that wraps what a method gives, with the same parameters."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Outer:
        return wrapper(method(*args, **kwargs), thread)

    return wrapped
