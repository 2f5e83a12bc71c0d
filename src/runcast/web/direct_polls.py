"""
Polls that are answered past ASGI, under uvicorn: a client asks the same again and again.

What its requests have in common is worked out by the first of them, which goes the usual way.
Those that follow bring the same token and the same address but for the position; if all that
would be checked of them is known to be good, they wait in the hub without a task, and what ends
their waiting writes the answer. Whatever is not plain is left to the usual way, refusals too.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runcast.hub.log_context import request_id
from runcast.web.bearer import Bearer, token_of
from runcast.web.direct_poll import DirectPoll
from runcast.web.envelope import request_id_of
from runcast.web.poll_answer import PollAnswer
from runcast.web.request_counts import RequestCounts
from runcast.web.shape import Shape

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

    def take(self, protocol: HttpToolsProtocol) -> DirectPoll | None:
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
