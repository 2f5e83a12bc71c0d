"""
What the parts of the hub know of each other.

The hub knows links, links carry subscriptions, and each of them needs something of the others:
here stands what, so that no file imports the file that imports it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from runcast.auth.grant import Grant
from runcast.core.frame import Frame, StateFrame
from runcast.core.limits import Limits
from runcast.core.position import Position
from runcast.core.run import Run
from runcast.core.subscription import Subscription
from runcast.hub.counts import Counts
from runcast.hub.form import AudienceKey
from runcast.hub.outlet import Outlet
from runcast.ports import Clock


class Carried(Protocol):
    """A subscription, as the connection that carries it sees it."""

    @property
    def name(self) -> str:
        """What tells it apart on its connection."""
        ...

    @property
    def kind(self) -> str:
        """What it follows: ``run``, ``tag``, ``task``, ``batch``, ``all`` or ``stream``."""
        ...

    @property
    def in_feed(self) -> bool:
        """Whether it is resumed from a cursor of run feeds."""
        ...

    @property
    def cursor(self) -> str | None:
        """From where a client that got everything so far resumes; None while it has not."""
        ...

    def start(self) -> None:
        """Receive changes from now on, and be brought up to date."""
        ...

    def stop(self) -> None:
        """Receive nothing more."""
        ...

    def due(self, now: float) -> float:
        """When it wants to be looked at."""
        ...

    def tick(self, now: float) -> None:
        """Do what is due."""
        ...

    def set_writable(self, writable: bool) -> None:
        """The connection can take more, or cannot."""
        ...

    def receive_lost(self, reason: str, message: str) -> None:
        """The position cannot be continued."""
        ...

    def close(self, frame: Frame) -> None:
        """Send a last frame, whatever else waits, and leave."""
        ...


class Link(Protocol):
    """A connection, as the hub and those it carries see it."""

    due: float
    """When `tick` is called next, in Unix seconds."""

    conflations: int
    """States of its subscriptions that a newer one replaced before they could be written."""

    request_id: str | None
    """The request that opened it: what is logged about the connection goes by it."""

    @property
    def hub(self) -> "Host": ...
    @property
    def kind(self) -> Literal["sse", "poll", "websocket"]: ...
    @property
    def outlet(self) -> Outlet: ...
    @property
    def closed(self) -> bool: ...
    @property
    def id(self) -> str | None: ...
    @property
    def grant(self) -> Grant: ...
    @property
    def deadline(self) -> float: ...
    @property
    def subscribers(self) -> Mapping[str, Carried]: ...
    @property
    def figures(self) -> Mapping[str, object]:
        """What there is to tell of it in the end, by name."""
        ...

    def write(self, data: bytes, now: float) -> None:
        """Write, unless the grant's time is over."""
        ...

    async def writable(self) -> None:
        """Wait until more can be written, or the connection is closed."""
        ...

    def renew(self, grant: Grant) -> None:
        """Let this be the grant from now on."""
        ...

    def leave(self, subscriber: Carried, *, finished: bool) -> None:
        """A subscription is over."""
        ...

    def answered(self) -> None:
        """There is an answer: nothing more belongs into it."""
        ...

    def expire(self) -> None:
        """The grant's time is over."""
        ...

    def revoke(self) -> None:
        """The grant was taken back."""
        ...

    def drain(self, delay_ms: int) -> None:
        """The gateway is going away."""
        ...

    def abort(self, reason: str) -> None:
        """Drop the connection now."""
        ...

    def outlet_closed(self) -> None:
        """The client is gone."""
        ...

    def next_due(self, now: float) -> float:
        """When it wants to be looked at again."""
        ...

    def tick(self, now: float) -> float | None:
        """Do what is due; return the next due time, or None when over."""
        ...


class Receiver(Protocol):
    """A subscription, as its audience sees it."""

    @property
    def key(self) -> AudienceKey: ...
    @property
    def connection(self) -> Link: ...

    def receive_window(
        self, frames: Sequence[StateFrame], before: Position, after: Position
    ) -> None:
        """Take frames through the subscription's state machine."""
        ...


class CatchingUp(Protocol):
    """A subscription, as the session that brings it up to date sees it."""

    session: asyncio.Task[None] | None

    @property
    def key(self) -> AudienceKey: ...
    @property
    def connection(self) -> Link: ...
    @property
    def machine(self) -> Subscription: ...
    @property
    def known_finished(self) -> bool: ...
    @property
    def shows_pages(self) -> bool:
        """Whether it sends what a page holds before it asks for the next one."""
        ...

    def receive_lost(self, reason: str, message: str) -> None:
        """The position cannot be continued; begin again with a snapshot."""
        ...

    def flush(self) -> None:
        """Write what the machine has to send, and do what its phase asks for."""
        ...


class Host(Protocol):
    """The hub, as connections and what they carry see it."""

    @property
    def clock(self) -> Clock: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def counts(self) -> Counts: ...

    @property
    def position(self) -> Position:
        """Where the changefeed stands."""
        ...

    def cursor_of(self, position: Position) -> str:
        """The position as text."""
        ...

    async def read_run(self, environment_id: str, run_id: str) -> Run | None:
        """The run as it is now."""
        ...

    def watch(self, receiver: Receiver) -> None:
        """Let a receiver have changes from now on."""
        ...

    def unwatch(self, receiver: Receiver) -> None:
        """Let a receiver have no more changes."""
        ...

    def write_past(self, receiver: Receiver, write: Callable[[bytes], None] | None) -> None:
        """Write changes to a receiver without asking it from now on; None: ask it again."""
        ...

    def start_session(self, subscriber: CatchingUp) -> None:
        """Read what the subscriber's machine asks for until it is live."""
        ...

    def name(self, connection: Link) -> str:
        """Give the connection an id, which nobody can guess."""
        ...

    def look_at(self, connection: Link, at: float) -> None:
        """Let the connection's `tick` be called at this time, and on from there."""
        ...

    def closing(self, connection: Link, reason: str) -> None:
        """A connection is over; its outlet may still have bytes."""
        ...

    def closed(self, connection: Link) -> None:
        """The outlet of a connection is gone."""
        ...
