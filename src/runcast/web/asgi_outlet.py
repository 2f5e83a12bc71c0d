"""
Outlets for any ASGI server: the hub drives ``send`` itself.

A send that does not have to wait is over when `write` returns, without a task. Only when it waits,
that is when the reader is behind, a task carries it on.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any

from starlette.types import Message, Send

from runcast.hub.connection import Connection
from runcast.web.handover import drop


class AsgiOutlet:
    """
    Writes messages through an ASGI ``send``.

    Args:
        send: The connection's.
        messages: What ``send`` takes, from bytes as the connection's form packs them.
        closing: The message that ends the connection, from close code and reason.
        transport: What ``send`` writes to in the end, to drop the connection at once; None where
            the server does not show it.
    """

    __slots__ = (
        "_closing",
        "_messages",
        "_pending",
        "_send",
        "_task",
        "_transport",
        "connection",
        "gone",
        "writable",
        "write_count",
    )

    tier = "portable"

    def __init__(
        self,
        send: Send,
        *,
        messages: Callable[[bytes], Iterable[Message]],
        closing: Callable[[int, str], Message],
        transport: asyncio.Transport | None,
    ) -> None:
        self.connection: Connection | None = None
        self.writable = True
        self.write_count = 0
        self.gone = asyncio.Event()  # nothing more will be written: the request may end
        self._send = send
        self._messages = messages
        self._closing = closing
        self._transport = transport
        self._pending: deque[Message] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def unsent(self) -> int:
        waiting = sum(len(each.get("body") or each.get("text") or "") for each in self._pending)
        return waiting + (self._transport.get_write_buffer_size() if self._transport else 0)

    async def serve(self, listening: Coroutine[Any, Any, None]) -> None:
        """Listen to the client until that ends, or until nothing more will be written."""
        listener = asyncio.ensure_future(listening)
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait({listener, gone}, return_when=asyncio.FIRST_COMPLETED)
            if listener.done():
                listener.result()
        finally:
            listener.cancel()
            gone.cancel()
            self.closed()

    def write(self, data: bytes) -> None:
        self.write_count += 1
        if not self.gone.is_set():
            self._pending.extend(self._messages(data))
            self._pump()

    def ping(self) -> None:
        """ASGI has no message for it; servers do it by themselves."""

    def finish(self, code: int, reason: str) -> None:
        if not self.gone.is_set():
            self._pending.append(self._closing(code, reason))
            self._pump()
            if self._task is None:
                self.gone.set()
            else:
                self._task.add_done_callback(lambda _: self.gone.set())

    def abort(self) -> None:
        self._pending.clear()
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            drop(self._transport)
        self.gone.set()

    def closed(self) -> None:
        """The client is gone, or the request ends."""
        self.gone.set()
        self._pending.clear()
        if self._task is not None:
            self._task.cancel()
        if self.connection is not None:
            self.connection.outlet_closed()

    def _pump(self) -> None:
        if self._task is not None:
            return
        while self._pending:
            sending: Coroutine[Any, Any, None] = self._send(self._pending.popleft())  # type: ignore[assignment]
            try:
                awaited = sending.send(None)
            except StopIteration:
                continue
            except Exception:  # whatever a server raises when its client is gone
                self._lose()
                return
            self._task = asyncio.get_running_loop().create_task(self._carry_on(sending, awaited))
            self._set_writable(False)
            return

    async def _carry_on(self, sending: Coroutine[Any, Any, None], awaited: object) -> None:
        try:
            await _Resumed(sending, awaited)
            while self._pending:
                await self._send(self._pending.popleft())
        except Exception:
            self._lose()
            return
        finally:
            self._task = None
        self._set_writable(True)

    def _lose(self) -> None:
        """The client is gone; whoever is writing hears of it when done."""
        self._pending.clear()
        self.gone.set()
        asyncio.get_running_loop().call_soon(self.closed)

    def _set_writable(self, writable: bool) -> None:
        self.writable = writable
        if self.connection is not None:
            self.connection.outlet_writable(writable)


class _Resumed:
    """A coroutine that was started by hand and stopped at ``awaited``, to be awaited to its end."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: object) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        while True:
            failure: BaseException | None = None
            try:
                yield awaited
            except BaseException as error:
                failure = error
            try:
                if failure is None:
                    awaited = self._coroutine.send(None)
                else:
                    awaited = self._coroutine.throw(failure)
            except StopIteration:
                return
