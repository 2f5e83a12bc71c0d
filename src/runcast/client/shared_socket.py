"""
One WebSocket as its client sees it: which subscriptions it carries, and how each fares.

    the socket          authenticated
              OPENING ───────────────▶ OPEN ─── refused, expired, draining, lost ──▶ CLOSED
                 └───────────────────────────────────────────────────────────────────▲

    a subscription       told              up-to-date
              ASKED ───────────▶ CATCHING_UP ◀────────▶ LIVE
                 │                     │       reset     │
                 └── end, problem, full, left, or CLOSED ┴──▶ OVER

Pure: texts come in, messages go to the lanes of the subscriptions, commands come out. Whoever
drives it sends `texts_to_send`, and opens another socket where this one is closed.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from runcast.client.errors import (
    ApiError,
    ClientClosed,
    ConnectionLost,
    InvalidArgument,
    RateLimited,
    ServerError,
    TokenExpired,
    UnexpectedAnswer,
    api_error,
)
from runcast.client.feed_message import POSITION, FeedMessage
from runcast.client.json_text import from_json, to_json
from runcast.client.lane import Lane
from runcast.client.retriable import NoWebSocket, Retriable, SocketFull

# RUNCAST_MAX_SUBSCRIPTIONS_PER_CONNECTION and RUNCAST_MAX_COMMAND_BYTES, as gateways have them
# unless set otherwise. A gateway that carries fewer says so, and is believed.
MAX_SUBSCRIPTIONS = 256
_MAX_COMMAND_BYTES = 64 * 1024

_RECONNECTS = range(4000, 4500)
_STOPS = range(4500, 5000)
_EXPIRED = 4001
_LONGEST_WAIT_SECONDS = 30.0


class SocketState(Enum):
    """Where a socket stands; see the module's diagram."""

    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


class State(Enum):
    """Where a subscription stands; see the module's diagram."""

    ASKED = "asked"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    OVER = "over"


class Kind(Enum):
    """What a message means for the state of its subscription."""

    TOLD = "told"
    UP_TO_DATE = "up-to-date"
    RESET = "reset"
    END = "end"
    PROBLEM = "problem"


TRANSITIONS: Mapping[tuple[State, Kind], State] = {
    (State.ASKED, Kind.TOLD): State.CATCHING_UP,
    (State.ASKED, Kind.UP_TO_DATE): State.LIVE,
    (State.ASKED, Kind.RESET): State.CATCHING_UP,
    (State.ASKED, Kind.END): State.OVER,
    (State.ASKED, Kind.PROBLEM): State.OVER,
    (State.CATCHING_UP, Kind.TOLD): State.CATCHING_UP,
    (State.CATCHING_UP, Kind.UP_TO_DATE): State.LIVE,
    (State.CATCHING_UP, Kind.RESET): State.CATCHING_UP,
    (State.CATCHING_UP, Kind.END): State.OVER,
    (State.CATCHING_UP, Kind.PROBLEM): State.OVER,
    (State.LIVE, Kind.TOLD): State.LIVE,
    (State.LIVE, Kind.UP_TO_DATE): State.LIVE,
    (State.LIVE, Kind.RESET): State.CATCHING_UP,
    (State.LIVE, Kind.END): State.OVER,
    (State.LIVE, Kind.PROBLEM): State.OVER,
}
_KINDS = {
    "up-to-date": Kind.UP_TO_DATE,
    "reset": Kind.RESET,
    "end": Kind.END,
    "problem": Kind.PROBLEM,
}


class SharedSocket:
    """
    The state machines of the module's diagram.

    ``expires_at`` is the end of the token's time in Unix seconds, as the gateway last said it.
    ``heard``: some subscription was told something, so this socket was of use.
    """

    def __init__(self) -> None:
        self.state = SocketState.OPENING
        self.expires_at: float | None = None
        self.heard = False
        self.max_subscriptions = MAX_SUBSCRIPTIONS
        self.failure: Exception | None = None
        self._lanes: dict[str, Lane] = {}
        self._states: dict[str, State] = {}
        self._names = 0
        self._texts: list[str] = []
        self._problem: ApiError | None = None

    @property
    def carried(self) -> int:
        """How many subscriptions there are."""
        return len(self._lanes)

    def state_of(self, name: str) -> State:
        """How a subscription fares."""
        return self._states.get(name, State.OVER)

    # -- what the client wants ------------------------------------------------------------------

    def subscribe(self, fields: Mapping[str, Any], lane: Lane) -> str:
        """
        Begin a subscription, and give its name.

        Raises:
            InvalidArgument: It takes more words than a gateway listens to.
        """
        self._names += 1
        name = str(self._names)
        text = _text({"type": "subscribe", "id": name, **fields})
        if len(text.encode()) > _MAX_COMMAND_BYTES:
            raise InvalidArgument("More is asked for than one subscription can say.")
        if self.state is SocketState.CLOSED:
            lane.end(self.failure)
            return name
        self._lanes[name] = lane
        self._states[name] = State.ASKED
        self._texts.append(text)
        return name

    def unsubscribe(self, name: str) -> None:
        """Nobody wants this one any more; what still comes for it is passed over."""
        if self._drop(name) is not None:
            self._texts.append(_text({"type": "unsubscribe", "id": name}))

    def authenticate(self, token: str) -> None:
        """Show a newer token: all subscriptions go on under it."""
        self._texts.append(_text({"type": "authenticate", "token": token}))

    def texts_to_send(self) -> list[str]:
        """Take out what is to be sent."""
        texts, self._texts = self._texts, []
        return texts

    # -- what the gateway says ------------------------------------------------------------------

    def receive(self, text: str | bytes) -> None:
        """Take one message; one that cannot be read closes the socket with `NoWebSocket`."""
        if self.state is SocketState.CLOSED:
            return
        try:
            message = from_json(text)
            name = message.get("id")
            if name is None:
                self._receive_own(message)
            elif name in self._lanes:
                self._receive_for(name, message, len(text))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            wrong = UnexpectedAnswer("The gateway sent a message that cannot be read.")
            wrong.__cause__ = error
            self.close(NoWebSocket(wrong))

    def receive_close(self, code: int, reason: str) -> None:
        """The connection is over; ``code`` as in docs/protocol.md "WebSocket"."""
        problem = self._problem or api_error(
            f"The gateway closed the WebSocket ({code} {reason[:100]}).", code=reason or "unknown"
        )
        if code == _EXPIRED:
            self.close(TokenExpired(problem.message, code="expired_token"))
        elif code in _STOPS:
            self.close(problem)
        elif code in _RECONNECTS:
            self.close(Retriable(problem))
        else:
            self.close(Retriable(ConnectionLost(f"The WebSocket was closed ({code}).")))

    def close(self, failure: Exception | None = None) -> None:
        """All subscriptions are over, for this reason."""
        if self.state is SocketState.CLOSED:
            return
        self.state = SocketState.CLOSED
        self.failure = failure or ClientClosed("This client was closed; make another.")
        for name in list(self._lanes):
            self._end(name, self.failure)

    # -- one message ----------------------------------------------------------------------------

    def _receive_own(self, message: Mapping[str, Any]) -> None:
        """A message that is about the socket itself."""
        match message["type"]:
            case "authenticated":
                self.state = SocketState.OPEN
                self.expires_at = message.get("expiresAt")
            case "cursor":
                for name, state in self._states.items():
                    lane = self._lanes[name]
                    if state is State.LIVE and lane.of_runs:
                        lane.receive(FeedMessage(POSITION, None, message["cursor"]), 0)
            case "problem":
                self._problem = _problem(message)
                if self.state is SocketState.OPENING:
                    self.close(_failure(self._problem))
            case "expired":
                told = message["expired"]
                self.close(TokenExpired(told["message"], code=told["code"]))
            case "reconnect":
                told = message["reconnect"]
                error = api_error(told["message"], code=told["code"])
                self.close(Retriable(error, min(told["delayMs"] / 1000, _LONGEST_WAIT_SECONDS)))

    def _receive_for(self, name: str, message: Mapping[str, Any], size: int) -> None:
        """A message for one subscription."""
        kind = _KINDS.get(message["type"], Kind.TOLD)
        was = self._states[name]
        self._states[name] = TRANSITIONS[was, kind]
        if kind is Kind.PROBLEM:
            self._end(name, self._refusal(_problem(message), was))
            return
        self.heard = True
        lane = self._lanes[name]
        lane.receive(_feed_message(message), size)
        if kind is Kind.END:
            self._end(name, None)
        elif lane.ended:  # it is full
            self.unsubscribe(name)

    def _refusal(self, error: ApiError, was: State) -> Exception:
        if error.code == "too_many_subscriptions" and was is State.ASKED and self.carried > 1:
            self.max_subscriptions = self.carried - 1
            return SocketFull(error.message)
        return _failure(error)

    def _end(self, name: str, failure: Exception | None) -> None:
        lane = self._drop(name)
        if lane is not None:
            lane.end(failure)

    def _drop(self, name: str) -> Lane | None:
        self._states.pop(name, None)
        return self._lanes.pop(name, None)


def _feed_message(message: Mapping[str, Any]) -> FeedMessage:
    """What a message of a subscription says, apart from whose it is."""
    name, position = message["type"], message.get("cursor")
    if name in message:
        data = message[name]
    else:  # `up-to-date`, and nothing else that has its data beside its name
        data = {key: each for key, each in message.items() if key not in ("type", "id", "cursor")}
    if name == "parts":
        data = list(zip(message["parts"], message["times"], strict=True)), message["offset"]
    return FeedMessage(name, data, "" if name == "reset" else position)


def _problem(message: Mapping[str, Any]) -> ApiError:
    problem = message["problem"]
    return api_error(problem["message"], code=problem["code"])


def _failure(error: ApiError) -> Exception:
    """What passes is tried again, as it is over HTTP."""
    return Retriable(error) if isinstance(error, RateLimited | ServerError) else error


def _text(message: Mapping[str, Any]) -> str:
    return to_json(message, "What is asked for").decode()
