"""Pages in which runs are read: where one ended, and what it held."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from runcast.core.frame import RunFrame, StateFrame
from runcast.core.position import Position
from runcast.core.run import RunChange
from runcast.core.selector import Selector
from runcast.core.view import View


@dataclass(frozen=True, slots=True)
class PageKey:
    """Where a page of runs ended: runs are ordered newest first, by creation and then by id."""

    created_at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class SnapshotPart:
    """A page of all runs that match: the first ``limit`` of those that come ``after``."""

    selector: Selector
    after: PageKey | None
    limit: int


@dataclass(frozen=True, slots=True)
class Paging:
    """
    Where a reader stands between two pages.

    ``since`` is None in a snapshot, otherwise the pages tell what changed since then. ``first`` is
    where the first page was read: what changes later is found from there. ``after`` is where the
    last page ended.
    """

    since: Position | None
    first: Position
    after: PageKey


@dataclass(frozen=True, slots=True)
class ChangePage:
    """
    A piece of a snapshot, or of what changed since a position.

    ``position`` is the database snapshot in which this page was read. ``next`` is None on the
    last page. ``frames`` are those of the changes' runs: who reads the same page, shares them.
    """

    changes: tuple[RunChange, ...]
    position: Position
    next: PageKey | None
    frames: tuple[RunFrame | None, ...] = field(init=False, repr=False, compare=False)
    _judged: dict[View, tuple[StateFrame, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _parts: dict[Selector, "ChangePage"] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _by_run: dict[str, list[int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        frames = (RunFrame(change.run) if change.run else None for change in self.changes)
        object.__setattr__(self, "frames", tuple(frames))

    def seen_through(self, view: View) -> tuple[StateFrame, ...]:
        """What this page means in a view; judged once, however many see it through an equal one."""
        judged = self._judged.get(view)
        if judged is None:
            pairs = zip(self.changes, self.frames, strict=True)
            verdicts = (view.judge(change, frame) for change, frame in pairs)
            judged = tuple(verdict for verdict in verdicts if verdict is not None)
            self._judged[view] = judged
        return judged

    def since(self, position: Position) -> "ChangePage":
        """What of this page, read from further back, became visible after a position."""
        if position.incarnation != self.position.incarnation:
            return self  # its transaction numbers may be those of others by now
        return self._part(lambda change: _since(change, position), self._all)

    def matching(self, selector: Selector) -> "ChangePage":
        """What of this page, read of all runs, is about those that match or matched."""
        part = self._parts.get(selector)
        if part is None:
            places = self._all if selector.run_id is None else self._places_of(selector.run_id)
            part = self._part(lambda change: _matching(change, selector), places)
            self._parts[selector] = part
        return part

    @property
    def _all(self) -> range:
        return range(len(self.changes))

    def _places_of(self, run_id: str) -> list[int]:
        if not self._by_run:  # thousands may ask for a run each
            for place, change in enumerate(self.changes):
                self._by_run.setdefault(change.facets.id, []).append(place)
        return self._by_run.get(run_id, [])

    def _part(
        self, part_of: Callable[[RunChange], RunChange | None], places: Iterable[int]
    ) -> "ChangePage":
        found = [
            (change, self.frames[place])
            for place in places
            if (change := part_of(self.changes[place])) is not None
        ]
        page = ChangePage(tuple(change for change, _ in found), self.position, self.next)
        # Those that others have encoded already.
        object.__setattr__(page, "frames", tuple(frame for _, frame in found))
        return page


def _since(change: RunChange, position: Position) -> RunChange | None:
    departures = tuple(each for each in change.departures if not position.sees(each.changed_in))
    if departures or (change.run is not None and not position.sees(change.run.changed_in)):
        return replace(change, departures=departures)
    return None


def _matching(change: RunChange, selector: Selector) -> RunChange | None:
    departures = tuple(each for each in change.departures if selector.matches(each.facets))
    if change.run is not None and (departures or selector.matches(change.facets)):
        return replace(change, departures=departures)
    return RunChange(departures[-1].facets, None, departures) if departures else None
