"""
Polls that are answered past ASGI, under uvicorn: a client asks the same again and again.

What its requests have in common is worked out by the first of them, which goes the usual way.
Those that follow bring the same token and the same address but for the position; if all that
would be checked of them is known to be good, they wait in the hub without a task, and what ends
their waiting writes the answer. Whatever is not plain is left to the usual way, refusals too.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from runcast.hub.log_context import request_id
from runcast.web.bearer import Bearer, token_of
from runcast.web.envelope import common_header_lines, note_answer, request_id_of
from runcast.web.handover import drop
from runcast.web.poll_answer import PollAnswer, PollResponse, Shape
from runcast.web.request_counts import RequestCounts
from runcast.web.responses import error_response

logger = logging.getLogger(__name__)

_MAX_QUESTION_BYTES = 2048  # what is longer goes the usual way each time
_PLACE = b"/realtime/v1/"
_BROUGHT = frozenset({b"handle", b"offset", b"cursor"})

# Headers that decide on the answer, and those of requests that are not plain.
_DECISIVE = frozenset({b"x-trigger-api-version", b"trigger-version", b"x-trigger-electric-version"})
_UNUSUAL = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
_TELLING = _DECISIVE | _UNUSUAL | {b"authorization"}


class _Asked(NamedTuple):
    """A request for a shape: the question, and what it brought back of the last answer."""

    question: tuple[bytes, ...]
    token: str
    handle: str
    offset: str
    cursor: str


class DirectPolls:
    """
    Remembers what was asked, and takes the requests that ask it again.

    Tokens are not kept: they are looked up with each request, as ever. When too many questions are
    known, those not asked for longest are forgotten.
    """

    def __init__(
        self, bearer: Bearer, requests: RequestCounts, *, max_questions: int = 10_000
    ) -> None:
        self._bearer = bearer
        self._requests = requests
        self._max_questions = max_questions
        self._shapes: OrderedDict[tuple[bytes, ...], Shape] = OrderedDict()

    def remember(
        self, scope: Mapping[str, Any], shape: Shape, handle: str, offset: str, cursor: str
    ) -> None:
        """Let whoever asks the same again be taken; the request was found to be good."""
        asked = _read(scope["raw_path"], scope["query_string"], scope["headers"])
        # What is spelled in some other way is not read here.
        if asked is None or asked[2:] != (handle, offset, cursor):
            return
        if sum(map(len, asked.question)) > _MAX_QUESTION_BYTES:
            return
        key = (shape.grant.token_hash.encode(), *asked.question)
        self._shapes[key] = shape
        self._shapes.move_to_end(key)
        while len(self._shapes) > self._max_questions:
            self._shapes.popitem(last=False)

    def take(self, protocol: HttpToolsProtocol) -> "DirectPoll | None":
        """Take the request whose head has just come; None: it is for ASGI."""
        path, _, query = protocol.url.partition(b"?")
        if not (path.startswith(_PLACE) and query and _is_plain(protocol)):
            return None
        asked = _read(path, query, protocol.headers)
        grant = None if asked is None else self._bearer.recall(asked.token)
        if asked is None or grant is None:
            return None
        key = (grant.token_hash.encode(), *asked.question)
        shape = self._shapes.get(key)
        if shape is None or shape.grant != grant or asked.handle == shape.expired_handle:
            return None
        hub = shape.hub
        if not hub.admits:
            return None
        echo = shape.echo(asked.handle, asked.offset, asked.cursor)
        if echo is None or echo.paging is not None:
            return None
        if not hub.admission.enters_at_once(grant.environment_id):
            return None
        self._shapes.move_to_end(key)
        answer = PollAnswer(shape, echo, asked.handle, asked.offset, since=echo.position)
        poll = DirectPoll(protocol, answer, self._requests, shape.route)
        before = request_id.set(request_id_of(protocol.headers))
        try:
            poll.begin()
        except Exception:
            # To its client a 400 of uvicorn's would be the end; ASGI answers what can be retried.
            logger.exception("a poll could not be held")
            poll.client_left()
            return None
        finally:
            request_id.reset(before)
            hub.admission.left(grant.environment_id)
        return poll


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


def _is_plain(protocol: HttpToolsProtocol) -> bool:
    """Tell whether nothing stands before the answer, and another request may follow it."""
    return (
        getattr(protocol.cycle, "response_complete", True)
        and protocol.parser.get_method() == b"GET"
        and protocol.parser.get_http_version() == "1.1"
        and protocol.parser.should_keep_alive()
        and not protocol.flow.write_paused
        and not protocol.transport.is_closing()
    )


def _read(path: bytes, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> _Asked | None:
    """Read what is asked; None where it is not told in the usual way."""
    parts = query.split(b"&")
    rest: list[bytes] = []
    brought: dict[bytes, bytes] = {}
    for part in parts:
        name, _, value = part.partition(b"=")
        if name == b"token":
            return None  # nor is one kept as part of a question
        if name in _BROUGHT:
            brought[name] = value
        else:
            rest.append(part)
    if len(brought) < len(_BROUGHT) or len(rest) + len(brought) < len(parts):
        return None
    question = [path, b"&".join(rest)]
    authorization: bytes | None = None
    for name, value in headers:
        if name not in _TELLING:
            continue
        if name in _DECISIVE:
            question += (name, value)
        elif name != b"authorization" or authorization is not None:
            return None
        else:
            authorization = value
    token = token_of((authorization or b"").decode("latin-1"))
    cursor = brought[b"cursor"].decode("latin-1")
    if token is None or "%" in cursor or "+" in cursor:  # in the others nothing is escaped
        return None
    handle, offset = brought[b"handle"].decode("latin-1"), brought[b"offset"].decode("latin-1")
    return _Asked(tuple(question), token, handle, offset, cursor)
