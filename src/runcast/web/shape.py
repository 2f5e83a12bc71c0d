"""What an official client follows, and what it has to bring back with each request."""

import random
from dataclasses import replace

from runcast.auth.grant import Grant
from runcast.core.selector import Selector
from runcast.core.shape import MUST_REFETCH, ShapeFormat
from runcast.core.shape_echo import Echo, parse_echo, shape_name
from runcast.core.shape_row import Dialect
from runcast.core.view import View
from runcast.hub.form import AudienceKey, Format
from runcast.hub.hub import Hub
from runcast.web.poll_response import PollResponse

_COMMON = {"cache-control": "no-store"}

# What clients before 3.3 look for, who do not send `x-trigger-electric-version`.
_LEGACY_NAMES = {
    "electric-handle": "electric-shape-id",
    "electric-offset": "electric-chunk-last-offset",
    "electric-cursor": "electric-next-cursor",
    "electric-up-to-date": "electric-chunk-up-to-date",
}


class Shape:
    """
    What the requests of one subscription have in common: what is asked for, how, and by whom.

    Args:
        selector: What is asked for, the bound on creation times as for a new subscription.
        skip: Columns to leave out.
        waits: Whether an answer without news is held back.
        expired_handle: One that must not be given again.
        legacy: Whether headers are given by their old names as well.
        route: The template of its address.
    """

    def __init__(
        self,
        hub: Hub,
        grant: Grant,
        selector: Selector,
        dialect: Dialect,
        skip: frozenset[str],
        *,
        waits: bool,
        expired_handle: str,
        legacy: bool,
        route: str,
    ) -> None:
        self.hub = hub
        self.grant = grant
        self.selector = selector
        self.dialect = dialect
        self.skip = skip
        self.waits = waits
        self.expired_handle = expired_handle
        self.legacy = legacy
        self.route = route
        self.name = shape_name(selector, grant.scopes)
        self._key: tuple[float | None, AudienceKey] | None = None  # the last one

    def echo(self, handle: str, offset: str, cursor: str) -> Echo | None:
        """Where the client stands; None where it has to begin anew."""
        echo = parse_echo(handle, offset, cursor)
        if echo is None or echo.shape != self.name:
            return None
        return echo if echo.position.database == self.hub.position.database else None

    def beginning(self) -> Echo:
        """Where a new subscription stands."""
        return Echo(self.name, letters(), self.selector.created_after, self.hub.position)

    def key(self, echo: Echo, form: Format) -> AudienceKey:
        """Whose audience it joins: the bound on creation times is the one that it began with."""
        selector = replace(self.selector, created_after=echo.created_after)
        return AudienceKey(View(selector, self.grant.permissions), form, ends_with_run=False)

    def key_of_news(self, echo: Echo) -> AudienceKey:
        """The same for those who wait for news."""
        if self._key is None or self._key[0] != echo.created_after:
            form = ShapeFormat(self.dialect, self.skip)
            self._key = (echo.created_after, self.key(echo, form))
        return self._key[1]

    def headers(self, found: dict[str, str]) -> dict[str, str]:
        """Headers of an answer, by the names that the client knows."""
        if not self.legacy:
            return _COMMON | found
        old = {_LEGACY_NAMES[name]: value for name, value in found.items() if name in _LEGACY_NAMES}
        return _COMMON | found | old

    def must_refetch(self) -> PollResponse:
        """Let the client forget what it has and begin anew; its parser wants a list."""
        headers = self.headers({"electric-handle": self.beginning().handle})
        return PollResponse([b"[", MUST_REFETCH, b"]"], headers, 409)


def standing(echo: Echo, handle: str, offset: str) -> dict[str, str]:
    """What a client has to bring back with its next request."""
    return {
        "electric-handle": handle,
        "electric-offset": offset,
        "electric-cursor": f"{echo.cursor}.{letters()}",
    }


def letters() -> str:
    """What tells subscriptions, and cursors of one position, apart."""
    return f"{random.getrandbits(32):08x}"
