"""One SSE response, poll or WebSocket: an outlet, the subscribers it carries, and its deadlines."""

import asyncio
import random
from typing import Literal

from runcast.auth.grant import Grant
from runcast.auth.revocation import REVOKED_MESSAGE
from runcast.core.frame import Connected, Expired, Frame, KeepAlive, Problem, Reconnect
from runcast.errors import Draining, ExpiredToken, GatewayError, LimitError, TokenRevoked
from runcast.hub.form import Format
from runcast.hub.log_context import request_id
from runcast.hub.outlet import Outlet
from runcast.hub.seams import Carried, Host
from runcast.hub.wheel import TICK_SECONDS

# A grant ends a little before its time, by an amount that differs: nothing is ever sent after
# `exp`, and tokens that were minted together do not all come back together.
EXPIRY_MARGIN_SECONDS = (0.3, 0.8)
_RENEWALS_A_MINUTE = 30


class Connection:
    """
    Looks after one client from its admission until its outlet is gone.

    Args:
        form: Form of the messages that belong to the connection itself.
        grant: What its client may do; the connection ends when that does.
        only_parts: The client takes any named event for a part of its stream: send it none, and
            cut the connection where it shall come back, since a clean end means complete.
    """

    __slots__ = (
        "_began_at",
        "_heartbeat_due",
        "_only_parts",
        "_paused_at",
        "_renewals",
        "_renewals_until",
        "_seen_writes",
        "_unsent",
        "_writable",
        "closed",
        "conflations",
        "deadline",
        "due",
        "form",
        "gone",
        "grant",
        "hub",
        "id",
        "kind",
        "outlet",
        "request_id",
        "single",
        "subscribers",
    )

    def __init__(
        self,
        hub: Host,
        outlet: Outlet,
        *,
        kind: Literal["sse", "poll", "websocket"],
        form: Format,
        grant: Grant,
        only_parts: bool = False,
    ) -> None:
        self.hub = hub
        self.outlet = outlet
        self.kind = kind
        self.form = form
        self.single = kind != "websocket"
        self._only_parts = only_parts
        self.subscribers: dict[str, Carried] = {}
        self.id: str | None = None
        self.closed = False
        self.gone = False  # closed, and the outlet has nothing left to send
        self._writable: asyncio.Event | None = None
        self._paused_at: float | None = None
        self._unsent = 0  # while paused: at the last look
        self.due = float("inf")  # when `tick` is called next
        self._began_at = hub.clock.now()
        self._heartbeat_due = self._began_at + hub.limits.heartbeat_seconds
        self._seen_writes = -1  # at the last heartbeat
        self.conflations = 0
        self.request_id = request_id.get()
        self._renewals = 0
        self._renewals_until = 0.0
        self._take(grant)

    def introduce(self) -> None:
        """Tell the client the id by which its token can be renewed."""
        if not self.closed:
            self.id = self.hub.name(self)
            self._say(Connected(self.id, self.grant.expires_at))

    def renew(self, grant: Grant) -> None:
        """
        Let this be the grant from now on, until its end.

        What the connection carries is not looked at again: see `Subscriber.renew`.

        Raises:
            LimitError: That was done too often of late.
        """
        now = self.hub.clock.now()
        if now >= self._renewals_until:
            self._renewals, self._renewals_until = 0, now + 60
        if self._renewals >= _RENEWALS_A_MINUTE:
            raise LimitError(f"A connection takes {_RENEWALS_A_MINUTE} tokens a minute; try later.")
        self._renewals += 1
        self._take(grant)

    def _take(self, grant: Grant) -> None:
        self.grant = grant
        if grant.expires_at is None:
            self.deadline = float("inf")
        else:
            self.deadline = grant.expires_at - random.uniform(*EXPIRY_MARGIN_SECONDS)
            self._look_by(self.deadline)

    # -- writing --------------------------------------------------------------------------------

    def write(self, data: bytes, now: float) -> None:
        """Write, unless the grant's time is over."""
        if now >= self.deadline:
            self.expire()
        else:
            self.outlet.write(data)

    def add(self, subscriber: Carried) -> None:
        """Carry one more subscription, unless the connection is over."""
        if self.closed:
            return
        self.subscribers[subscriber.name] = subscriber
        self._count(subscriber, 1)
        subscriber.start()
        due = subscriber.due(self.hub.clock.now())
        if due < self.due and not self.closed:
            self.hub.look_at(self, due)

    def leave(self, subscriber: Carried, *, finished: bool) -> None:
        """A subscription is over; a connection that carried only it is over too."""
        if self.subscribers.get(subscriber.name) is subscriber:
            del self.subscribers[subscriber.name]
            self._count(subscriber, -1)
            subscriber.stop()
        if self.single and not self.closed:
            self._finish("finished" if finished else "closed", 1000, "")

    def _count(self, subscriber: Carried, difference: int) -> None:
        self.hub.counts.subscriptions[subscriber.kind, self.kind] += difference

    @property
    def figures(self) -> dict[str, object]:
        """What there is to tell of it in the end, by name."""
        return {
            "seconds": round(self.hub.clock.now() - self._began_at, 3),
            "writes": self.outlet.write_count,
            "conflations": self.conflations,
        }

    # -- ends -----------------------------------------------------------------------------------

    def expire(self) -> None:
        """The grant's time is over: say so, and end; what a reader has not got, it never gets."""
        if not self.outlet.writable:
            self.abort("expired")
            return
        self._say(Expired())
        self._finish("expired", ExpiredToken.close_code, ExpiredToken.code)

    def revoke(self) -> None:
        """The grant was taken back: end as when its time is over."""
        if not self.outlet.writable:
            self.abort("revoked")
            return
        self._say(Problem(TokenRevoked.code, REVOKED_MESSAGE))
        self._finish("revoked", TokenRevoked.close_code, TokenRevoked.code)

    def drain(self, delay_ms: int) -> None:
        """The gateway is going away: ask to reconnect after the delay, and end."""
        self._say(Reconnect(delay_ms))
        self._finish("drain", Draining.close_code, Draining.code)

    def fail(self, error: GatewayError) -> None:
        """Tell the client why the connection cannot go on, and end."""
        self._say(Problem(error.code, error.message))
        self._finish("problem", error.close_code, error.code)

    def answered(self) -> None:
        """There is an answer: nothing more belongs into it."""
        self._finish("answered", 1000, "")

    def abort(self, reason: str) -> None:
        """Drop the connection now."""
        if not self.closed:
            self._close(reason)
        self.outlet.abort()

    def _say(self, frame: Connected | Expired | Reconnect | Problem) -> None:
        if not self.closed and not self._only_parts:
            self._tell(frame, None)

    def _tell(self, frame: Frame, cursor: str | None) -> None:
        data = self.form.pack([self.form.encode(frame, cursor)])
        self.outlet.write(data)
        self.hub.counts.bytes_written += len(data)

    def _finish(self, reason: str, code: int, text: str) -> None:
        if self.closed:
            return
        self._close(reason)
        if self._only_parts and reason != "finished":
            self.outlet.abort()
        else:
            self.outlet.finish(code, text)

    def _close(self, reason: str) -> None:
        self.closed = True
        for subscriber in self.subscribers.values():
            self._count(subscriber, -1)
            subscriber.stop()
        self.subscribers.clear()
        if self._writable is not None:
            self._writable.set()
        self.hub.closing(self, reason)

    # -- the outlet's side ----------------------------------------------------------------------

    def outlet_writable(self, writable: bool) -> None:
        """The outlet can take more, or cannot."""
        self._paused_at = None if writable else self.hub.clock.now()
        self._unsent = self.outlet.unsent
        if self._paused_at is not None:
            self._look_by(self._paused_at + self.hub.limits.stall_timeout_seconds)
        if self._writable is not None and writable:
            self._writable.set()
            self._writable = None
        for subscriber in list(self.subscribers.values()):
            subscriber.set_writable(writable)

    def outlet_closed(self) -> None:
        """The client is gone."""
        if not self.closed:
            self._close("client")
        self.gone = True
        self.hub.closed(self)

    async def writable(self) -> None:
        """Wait until more can be written, or the connection is closed."""
        if not self.closed and not self.outlet.writable:
            if self._writable is None:
                self._writable = asyncio.Event()
            await self._writable.wait()

    # -- time -----------------------------------------------------------------------------------

    def next_due(self, now: float) -> float:
        """When the connection wants to be looked at again."""
        due = min(self.deadline, self._heartbeat_due)
        for subscriber in self.subscribers.values():
            due = min(due, subscriber.due(now))
        if self._paused_at is not None:
            due = min(due, self._paused_at + self.hub.limits.stall_timeout_seconds)
        return max(due, now)

    def _look_by(self, at: float) -> None:
        """See to it that `tick` is called by then, once the hub looks after the connection."""
        if at < self.due < float("inf"):
            self.hub.look_at(self, at)

    def tick(self, now: float) -> float | None:
        """Expire, drop a stalled reader, or show an idle one that the connection lives."""
        if now + TICK_SECONDS <= self.due:
            return None  # an earlier look was asked for, and goes on in place of this one
        due = self._tick(now)
        self.due = float("inf") if due is None else due
        return due

    def _tick(self, now: float) -> float | None:
        if self.closed:
            return self._tick_closed(now)
        if now >= self.deadline:
            self.expire()
            return self._tick_closed(now)
        if self._tick_subscribers(now):
            return self._tick_closed(now)
        if self._paused_at is not None:
            if self._is_stalled(now):
                self.abort("slow_consumer")
                return None
        elif now >= self._heartbeat_due:
            self._heartbeat_due = now + self.hub.limits.heartbeat_seconds
            if self.outlet.write_count == self._seen_writes:
                self._keep_alive()
            self._seen_writes = self.outlet.write_count
        return self.next_due(now)

    def _tick_subscribers(self, now: float) -> bool:
        """Let each do what is due; tells whether that ended the connection."""
        for subscriber in list(self.subscribers.values()):
            subscriber.tick(now)
        return self.closed

    def _tick_closed(self, now: float) -> float | None:
        """An ended connection whose reader takes nothing would never go: drop it in the end."""
        if self.gone:
            return None
        if self._paused_at is None:
            self._paused_at = now
            self._unsent = self.outlet.unsent
        if self._is_stalled(now):
            self.outlet.abort()
            return None
        return self._paused_at + self.hub.limits.stall_timeout_seconds

    def _is_stalled(self, now: float) -> bool:
        """Tell whether a reader that is behind took nothing for too long; slowly is fine."""
        assert self._paused_at is not None
        unsent = self.outlet.unsent
        if unsent < self._unsent:
            self._paused_at = now
        self._unsent = unsent
        return now - self._paused_at >= self.hub.limits.stall_timeout_seconds

    def _keep_alive(self) -> None:
        cursors = {each.cursor for each in self.subscribers.values() if each.in_feed}
        cursor = cursors.pop() if len(cursors) == 1 else None
        if cursor is not None or self.single:
            self._tell(KeepAlive(), cursor)
        else:
            self.outlet.ping()
