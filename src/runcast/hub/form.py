"""What makes two subscribers one audience: what they see, and in which form."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from runcast.core.frame import Frame
from runcast.core.run import LARGE_COLUMNS
from runcast.core.view import View


class Format(Hashable, Protocol):
    """How frames become bytes; equal formats make equal bytes."""

    @property
    def skip(self) -> frozenset[str]:
        """Columns of runs that are not encoded."""
        ...

    def encode(self, frame: Frame, cursor: str | None) -> bytes:
        """One frame, with the cursor that it lets the client resume from."""
        ...

    def pack(self, events: Iterable[bytes]) -> bytes:
        """Encoded frames in the form in which an outlet takes them."""
        ...


@dataclass(frozen=True, slots=True)
class AudienceKey:
    """Subscribers with equal keys get equal bytes."""

    view: View
    form: Format
    ends_with_run: bool
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Looked up several times for each subscriber, and made of a good deal.
        object.__setattr__(self, "_hash", hash((self.view, self.form, self.ends_with_run)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def large_columns(self) -> frozenset[str]:
        """What of a run's `LARGE_COLUMNS` is encoded."""
        return LARGE_COLUMNS - self.form.skip
