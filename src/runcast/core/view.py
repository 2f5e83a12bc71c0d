"""A selector seen through a grant: which runs are asked for, and may be seen."""

from dataclasses import dataclass

from runcast.core.frame import GoneFrame, RunFrame, StateFrame
from runcast.core.run import RunChange, RunFacets
from runcast.core.scope import Permissions
from runcast.core.selector import Selector


@dataclass(frozen=True, slots=True)
class View:
    """What one subscription may see of what it asks for. Equal views share all work."""

    selector: Selector
    permissions: Permissions

    def shows(self, facets: RunFacets) -> bool:
        """Tell whether a run with these facets is in this view."""
        return self.selector.matches(facets) and self.permissions.may_read(facets)

    def judge(self, change: RunChange, frame: RunFrame | None) -> StateFrame | None:
        """
        Say what a change means here: the run's new state, its leaving, or nothing.

        ``frame`` is the shared frame of ``change.run`` (None if that is None). A run is said to be
        gone only where it was in view before, so nobody learns ids that were never theirs.
        """
        if frame is not None and self.shows(frame.run.facets):
            return frame
        for departure in reversed(change.departures):
            if self.shows(departure.facets):
                return GoneFrame(
                    departure.facets.id,
                    "deleted" if change.run is None else "unmatched",
                    departure.version,
                    departure.changed_in,
                )
        return None
