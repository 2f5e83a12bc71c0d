"""A hub over runs in memory, and clients of run feeds whose connections are moved by hand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from runcast.core.limits import Limits
from runcast.core.page import ChangePage, PageKey, SnapshotPart
from runcast.core.position import Position, parse_cursor
from runcast.core.run import Run
from runcast.core.scope import compile_scopes
from runcast.core.selector import Selector
from runcast.core.socket_format import SocketFormat
from runcast.core.sse import SseFormat
from runcast.core.subscription import Subscription
from runcast.core.view import View
from runcast.hub.connection import Connection
from runcast.hub.form import AudienceKey
from runcast.hub.hub import Hub
from runcast.hub.subscriber import Subscriber
from runcast.hub.wheel import TICK_SECONDS
from runcast.testing import ManualClock, MemoryChunkLog, MemoryRunReader
from tests.support.grants import make_grant
from tests.support.outlet import RecordingOutlet
from tests.support.runs import make_run
from tests.support.stream_hub import Hold, calm

Found = TypeVar("Found")

NOTHING: frozenset[str] = frozenset()
EVERYTHING = Selector("env_1")


class ScriptedRuns(MemoryRunReader):
    """Runs whose pages can be counted, held up, and made to fail."""

    def __init__(self, database: int = 1) -> None:
        super().__init__(database)
        self.limits: list[int] = []
        self.failures: list[Exception] = []
        self._holds: list[Hold] = []

    @property
    def reads(self) -> int:
        return len(self.limits)

    def hold_next_read(self) -> Hold:
        hold = Hold()
        self._holds.append(hold)
        return hold

    async def read_snapshots(
        self, parts: Sequence[SnapshotPart]
    ) -> Mapping[SnapshotPart, ChangePage]:
        self._begin(max(part.limit for part in parts))
        return await self._arrive(await super().read_snapshots(parts))

    async def read_changes(
        self, selector: Selector, *, since: Position, after: PageKey | None, limit: int
    ) -> ChangePage:
        self._begin(limit)
        page = await super().read_changes(selector, since=since, after=after, limit=limit)
        return await self._arrive(page)

    def _begin(self, limit: int) -> None:
        self.limits.append(limit)
        if self.failures:
            raise self.failures.pop(0)

    async def _arrive(self, found: Found) -> Found:
        if self._holds:
            await self._holds.pop(0).wait()
        return found


class Client:
    """One reader of a run feed, on a connection of its own, with Server-Sent Events."""

    def __init__(self, connection: Connection, outlet: RecordingOutlet, feed: Subscriber) -> None:
        self.connection = connection
        self.outlet = outlet
        self.feed = feed

    @property
    def names(self) -> list[str]:
        """What came, in few words; keep-alives have none."""
        return [_in_words(event.name, event.json if event.name else None) for event in self.events]

    @property
    def events(self) -> Any:
        return self.outlet.events

    @property
    def runs(self) -> dict[str, int]:
        """Revisions of the runs that the client knows by what it was sent."""
        known: dict[str, int] = {}
        for event in self.events:
            match event.name:
                case "run":
                    known[event.json["id"]] = event.json["revision"]
                case "gone":
                    known.pop(event.json["id"], None)
                case "reset":
                    known.clear()
        return known

    @property
    def cursor(self) -> str:
        """The last cursor that came."""
        cursor: str = [event.id for event in self.events if event.id is not None][-1]
        return cursor

    def forget(self) -> None:
        """Look only at what comes from now on."""
        self.outlet.written = b""
        self.outlet.writes.clear()


class RunHub:
    """A hub that stands where its database does; `follow` makes it stand there again."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.clock = ManualClock()
        self.runs = ScriptedRuns()
        self.hub = Hub(self.runs, MemoryChunkLog(self.clock), self.clock, self.limits)
        self.hub.reads.longest_pause = 0  # no time passes here in which a crowd could wait
        self.hub.begin(self.runs.position)

    # -- the world ------------------------------------------------------------------------------

    def write(self, *run_ids: str, **changes: Any) -> None:
        """Write runs, and let the changefeed tell of them."""
        self.runs.write(*(make_run(id=run_id, **changes) for run_id in run_ids))
        self.follow()

    def delete(self, run_id: str) -> None:
        self.runs.delete(run_id)
        self.follow()

    def follow(self) -> None:
        here = self.runs.position
        self._check_who_is_written_past()
        self.hub.publish(self.runs.changes(self.hub.position, here), here)
        self._check_who_is_written_past()

    def _check_who_is_written_past(self) -> None:
        for audience in self.hub._audiences.values():
            for feed in audience.subscribers:
                assert isinstance(feed, Subscriber)
                assert (feed in audience._past) is feed.direct is feed.machine.direct

    def run(self, run_id: str) -> Run:
        run = self.runs.run_at(self.runs.position, run_id)
        assert run is not None
        return run

    def pass_time(self, seconds: float) -> None:
        """Let time pass as the wheel sees it, tick by tick."""
        for _ in range(round(seconds / TICK_SECONDS)):
            self.clock.advance(TICK_SECONDS)
            self.turn()

    def turn(self) -> None:
        self.hub._wheel.turn(_raise)

    # -- clients --------------------------------------------------------------------------------

    def connect(
        self,
        selector: Selector = EVERYTHING,
        *,
        scopes: str = "read:runs",
        cursor: str | None = None,
        ends_with_run: bool = False,
        known_finished: bool = False,
        skip: frozenset[str] = NOTHING,
        kind: Literal["sse", "websocket"] = "sse",
        expires_in: float | None = None,
        writable: bool = True,
        token: dict[str, Any] | None = None,
    ) -> Client:
        """Open a connection and follow runs on it."""
        expires_at = None if expires_in is None else self.clock.now() + expires_in
        grant = make_grant(scopes.split(), expires_at=expires_at, **(token or {}))
        outlet = RecordingOutlet()
        outlet.writable = writable
        connection = Connection(
            self.hub,
            outlet,
            kind=kind,
            form=SseFormat(NOTHING, chunked=False),
            grant=grant,
        )
        outlet.connection = connection
        self.hub.connect(connection)
        machine = Subscription(
            since=parse_cursor(cursor) if cursor else None,
            ends_with_run=ends_with_run,
            limits=self.limits,
        )
        view = View(selector, grant.permissions)
        feed = Subscriber(
            connection,
            "feed",
            AudienceKey(view, SseFormat(skip, chunked=False), ends_with_run),
            machine,
            known_finished=known_finished,
        )
        connection.add(feed)
        return Client(connection, outlet, feed)

    async def live(self, selector: Selector = EVERYTHING, **options: Any) -> Client:
        """A client that has all there is."""
        client = self.connect(selector, **options)
        await calm()
        assert client.names[-1] == "up-to-date"
        return client


def socket_feed(client: Client, name: str, selector: Selector) -> Subscriber:
    """One more subscription, in the form of WebSockets, that is not on its connection yet."""
    view = View(selector, compile_scopes(["read:runs"]))
    key = AudienceKey(view, SocketFormat(name, NOTHING), False)
    return Subscriber(client.connection, name, key, Subscription(since=None))


def _in_words(name: str | None, data: Any) -> str:
    say: dict[str | None, Callable[[], str]] = {
        None: lambda: "",
        "run": lambda: f"run {data['id']}",
        "gone": lambda: f"gone {data['id']} {data['reason']}",
        "reset": lambda: f"reset {data['reason']}",
        "end": lambda: f"end {data['reason']}",
        "problem": lambda: f"problem {data['code']}",
    }
    return say.get(name, lambda: str(name))()


def _raise(error: Exception) -> None:
    raise error
