"""What the changefeed finds between two positions, and how gateways tell it to each other."""

from dataclasses import dataclass, replace
from typing import Any

import orjson

from runcast.core.chunk import StreamMove, StreamName
from runcast.core.position import Position, parse_cursor
from runcast.core.run import Departure, RunFacets
from runcast.errors import InvalidCursor, InvalidParameter

MAX_KEYS = 1000
MAX_BYTES = 256 * 1024
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Window:
    """
    All that became visible between two positions, by its keys: rows are read by who needs them.

    Not ``whole``: it is too much to be told, and has to be read.
    """

    before: Position
    after: Position
    runs: tuple[RunFacets, ...] = ()
    departures: tuple[Departure, ...] = ()
    moves: tuple[StreamMove, ...] = ()
    whole: bool = True

    @classmethod
    def at(cls, position: Position) -> "Window":
        """A window in which nothing has happened yet."""
        return cls(position, position)

    @property
    def size(self) -> int:
        """How many changes it tells of; a run may be among them more than once."""
        return len(self.runs) + len(self.departures) + len(self.moves)

    def since(self, position: Position) -> "Window":
        """What is new of it to who stands at a position that reaches its beginning."""
        if position.reaches(self.after):
            return Window.at(position)
        # A run is told in its newest state however often; a departure could come after a state
        # that the run took later.
        unseen = tuple(each for each in self.departures if not position.sees(each.changed_in))
        return replace(self, before=position, departures=unseen)

    def joined(self, later: "Window") -> "Window | None":
        """Both as one window; None if nobody knows what happened in between."""
        if self.after.reaches(later.after):
            return self
        if not self.after.reaches(later.before):
            return None
        if not (self.whole and later.whole) or self.size + later.size > MAX_KEYS:
            return Window(self.before, later.after, whole=False)
        new = later.since(self.after)
        return Window(
            self.before,
            new.after,
            self.runs + new.runs,
            self.departures + new.departures,
            self.moves + new.moves,
        )

    def to_bytes(self) -> bytes:
        """The window as gateways send it, at most `MAX_BYTES`."""
        ends = [_FORMAT, self.before.cursor(), self.after.cursor()]
        if self.whole:
            told = orjson.dumps(
                [
                    *ends,
                    [_facets(run) for run in self.runs],
                    [
                        [_facets(each.facets), each.version, each.changed_in, each.deleted]
                        for each in self.departures
                    ],
                    [
                        [move.name.run_id, move.name.key, move.next_index, move.closed]
                        for move in self.moves
                    ],
                ]
            )
            if len(told) <= MAX_BYTES:
                return told
        return orjson.dumps(ends)


def parse_window(data: bytes) -> Window:
    """
    Read what `Window.to_bytes` wrote.

    Raises:
        ValueError: A gateway of another version wrote it, or none.
    """
    try:
        number, before, after, *told = orjson.loads(data)
        if number != _FORMAT or len(told) not in (0, 3):
            raise ValueError("another format")
        ends = parse_cursor(before), parse_cursor(after)
        if not told:
            return Window(*ends, whole=False)
        runs, departures, moves = told
        return Window(
            *ends,
            tuple(_parse_facets(each) for each in runs),
            tuple(
                Departure(_parse_facets(facets), version, changed_in, deleted)
                for facets, version, changed_in, deleted in departures
            ),
            tuple(
                StreamMove(StreamName(run_id, key), next_index, closed)
                for run_id, key, next_index, closed in moves
            ),
        )
    except (AttributeError, InvalidCursor, InvalidParameter, TypeError) as error:
        raise ValueError("not a window") from error


def _facets(run: RunFacets) -> list[Any]:
    return [run.environment_id, run.id, run.task, run.tags, run.batch_id, run.created_at]


def _parse_facets(told: list[Any]) -> RunFacets:
    environment_id, run_id, task, tags, batch_id, created_at = told
    return RunFacets(environment_id, run_id, task, tuple(tags), batch_id, created_at)
