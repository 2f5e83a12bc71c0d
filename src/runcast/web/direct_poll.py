"""One poll that is answered past ASGI: it waits in the hub, and writes to uvicorn's connection."""

import asyncio
from collections.abc import Iterator
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from runcast.web.envelope import common_header_lines, note_answer
from runcast.web.handover import drop
from runcast.web.poll_answer import PollAnswer
from runcast.web.poll_response import PollResponse
from runcast.web.request_counts import RequestCounts
from runcast.web.responses import error_response


class DirectPoll:
    """
    One poll without a task: an outlet for the hub, a request that goes on for uvicorn.

    It stands where uvicorn's protocol has its ``cycle``, and has what the protocol asks of that.
    """

    __slots__ = (
        "_answer",
        "_began",
        "_protocol",
        "_requests",
        "_route",
        "_sending",
        "aborted",
        "disconnected",
        "finished",
        "keep_alive",
        "more_body",
        "response_complete",
        "writable",
        "write_count",
    )

    tier = "handover"
    message_event: ClassVar = asyncio.Event()  # nobody waits for it

    def __init__(
        self, protocol: HttpToolsProtocol, answer: PollAnswer, requests: RequestCounts, route: str
    ) -> None:
        self.response_complete = self.disconnected = self.more_body = False
        self.keep_alive = self.writable = True
        self.write_count = 0
        self.finished = self.aborted = False
        self._answer: PollAnswer | None = answer  # None: it is over
        self._began = protocol.loop.time()
        self._protocol = protocol
        self._requests = requests
        self._route = route
        self._sending: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Wait in the hub for an answer."""
        assert self._answer is not None
        self._answer.ask(self)
        if self.finished:  # when it was not quite there
            self._respond()

    # -- the hub's side -------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        return self._protocol.transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """The connection's own messages are not for clients that poll."""

    def ping(self) -> None:
        """A poll is over soon."""

    def finish(self, code: int, reason: str) -> None:
        self.finished = True
        if self._answer is not None and self._answer.poll is not None:
            self._respond()

    def abort(self) -> None:
        self.aborted = True
        if self.finished:
            drop(self._protocol.transport)
        else:
            self.finish(0, "")

    # -- the client's side ----------------------------------------------------------------------

    def client_left(self) -> None:
        """The connection is lost."""
        if self._answer is not None:
            self._let_go(self._answer)

    def _respond(self) -> None:
        answer, protocol, requests = self._answer, self._protocol, self._requests
        assert answer is not None
        try:
            response = answer.response(aborted=self.aborted)
        except Exception as error:
            refusal = error_response(error)
            response = PollResponse([bytes(refusal.body)], refusal.headers, refusal.status_code)
        seconds = protocol.loop.time() - self._began
        note_answer(requests, "GET", self._route, response.status, seconds)
        requests.bytes_written += response.size
        self.keep_alive &= not response.ends_connection
        slices = response.slices()
        first = next(slices)
        protocol.transport.write(self._head(response, answer.request_id) + first)
        if response.size == len(first) and not protocol.flow.write_paused:
            self._end(answer)
            return
        self._sending = protocol.loop.create_task(self._send(answer, slices))
        protocol.tasks.add(self._sending)  # a shutdown waits for it
        self._sending.add_done_callback(protocol.tasks.discard)

    def _head(self, response: PollResponse, request: str | None) -> bytes:
        lines = [STATUS_LINE[response.status]]
        for name, value in self._protocol.server_state.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines += (response.header_lines, common_header_lines(request))
        if not (self.keep_alive or response.ends_connection):
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    async def _send(self, answer: PollAnswer, slices: Iterator[bytes]) -> None:
        """Send the rest as the reader takes it."""
        protocol = self._protocol
        try:
            for data in slices:
                await protocol.flow.drain()
                if self._answer is None:
                    return
                protocol.transport.write(data)
            await protocol.flow.drain()
        except asyncio.CancelledError:
            protocol.transport.close()
            raise
        if self._answer is not None:
            self._end(answer)

    def _end(self, answer: PollAnswer) -> None:
        """Leave the connection to the next request."""
        self.response_complete = True
        self._let_go(answer)
        if not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()

    def _let_go(self, answer: PollAnswer) -> None:
        self._answer = None
        answer.over()
