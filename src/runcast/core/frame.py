"""Every message that the gateway sends on a feed; docs/protocol.md "Run feeds" describes them."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Literal

from runcast.core.run import Run
from runcast.core.run_json import realtime_object


@dataclass(frozen=True, slots=True)
class RunFrame:
    """A run as it is now. Keeps its bytes, so that it is encoded once however many receive it."""

    run: Run
    _encoded: dict[Hashable, bytes] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def run_id(self) -> str:
        return self.run.id

    @property
    def revision(self) -> int:
        return self.run.version

    @property
    def changed_in(self) -> int:
        return self.run.changed_in

    def json(self, skip: frozenset[str]) -> bytes:
        """The run object as one line of JSON without the columns in ``skip``."""
        return self.encoded(skip, lambda run: realtime_object(run, skip))

    def encoded(self, form: Hashable, encode: Callable[[Run], bytes]) -> bytes:
        """The run in a form, which ``encode`` makes if nobody asked for it before."""
        known = self._encoded.get(form)
        if known is None:
            known = self._encoded[form] = encode(self.run)
        return known


@dataclass(frozen=True, slots=True)
class GoneFrame:
    """A run left the feed: it was deleted, or it does not match any more."""

    run_id: str
    reason: Literal["deleted", "unmatched"]
    revision: int
    changed_in: int


StateFrame = RunFrame | GoneFrame


@dataclass(frozen=True, slots=True)
class UpToDate:
    """Everything so far was sent; more will come. In a stream, ``offset`` is that of the next."""

    offset: int | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """What the client has may have holes: it forgets it, and a snapshot follows."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class End:
    """Nothing more will come on this feed."""

    reason: Literal["finished", "deleted", "closed", "idle", "unsubscribed"]


@dataclass(frozen=True, slots=True)
class Expired:
    """The grant's time is over."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The gateway is going away; come back after the delay, in milliseconds."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class Problem:
    """The feed cannot go on; ``code`` and ``message`` of the error."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The first word: the connection's id, and until when its token is good, if that ends."""

    connection_id: str
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Nothing happened for a while; carries the cursor so that a resume starts from here."""


Frame = (
    RunFrame
    | GoneFrame
    | UpToDate
    | Reset
    | End
    | Expired
    | Reconnect
    | Problem
    | Connected
    | KeepAlive
)
