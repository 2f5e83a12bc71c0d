"""Tokens that are taken back before their time, and the book in which a gateway looks them up."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from runcast.auth.grant import Grant
from runcast.errors import BackendError, TokenRevoked

# A book that was not brought up to date for longer lets nobody in.
STALE_SECONDS = 10.0

REVOKED_MESSAGE = "The token or key was revoked; ask your backend for a new one."

RevocationKind = Literal["token", "subject", "environment", "key"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """
    What is taken back.

    Attributes:
        kind: ``token`` (by id), ``subject`` and ``environment`` (tokens issued before a time), or
            ``key`` (with all that it signed).
        value: The token's id, the subject, the hash of the key; empty for an environment.
        issued_before: Of a subject or an environment, those tokens alone; otherwise None.
        since: From when it counts: a key may end later.
        kept_until: By then everything that it can hit has expired.
        lifted: It does not count any more.
    """

    id: str
    environment_id: str
    kind: RevocationKind
    value: str
    issued_before: datetime | None
    created_at: datetime
    since: datetime
    kept_until: datetime
    lifted: bool = False


@dataclass(frozen=True, slots=True)
class NewRevocation:
    """A revocation to be made, which counts at once; see `Revocation`."""

    environment_id: str
    kind: RevocationKind
    value: str
    issued_before: datetime | None
    kept_until: datetime


class RevocationBook:
    """
    The revocations that count, or will; a grant is looked up in a few steps, however many they are.

    ``read_at`` is when the book was last known to be complete, in Unix seconds; infinite where
    nobody follows revocations.
    """

    def __init__(self) -> None:
        self.read_at = math.inf
        self._entries: dict[tuple[str, RevocationKind, str], tuple[float, float, float]] = {}
        self._ahead: set[float] = set()  # when keys will end

    def __len__(self) -> int:
        return len(self._entries)

    def begin_anew(self) -> None:
        """Forget all: everything that counts is received after this."""
        self._entries.clear()
        self._ahead.clear()

    def receive(self, revocations: Iterable[Revocation], now: float) -> bool:
        """Take what is new; tells whether some of it may hit grants that were good before."""
        hits = False
        for each in revocations:
            key = (each.environment_id, each.kind, each.value)
            if each.lifted or each.kept_until.timestamp() <= now:
                self._entries.pop(key, None)
                continue
            since = each.since.timestamp()
            bound = math.inf if each.issued_before is None else each.issued_before.timestamp()
            self._entries[key] = (since, bound, each.kept_until.timestamp())
            if since > now:
                self._ahead.add(since)
            else:
                hits = True
        return hits

    def receive_time(self, now: float) -> bool:
        """Tell whether a revocation has come to count since the last look."""
        begun = {since for since in self._ahead if since <= now}
        self._ahead -= begun
        return bool(begun)

    def forget_expired(self, now: float) -> None:
        """Drop what can hit nothing any more."""
        over = [key for key, (_, _, kept_until) in self._entries.items() if kept_until <= now]
        for key in over:
            del self._entries[key]

    def revokes(self, grant: Grant, now: float) -> bool:
        """Tell whether a grant was taken back."""
        if not self._entries:
            return False
        if self._hits(grant, "key", grant.key_hash, now):
            return True
        if grant.is_secret_key:
            return False
        return (
            self._hits(grant, "token", grant.token_id, now)
            or self._hits(grant, "environment", "", now)
            or (grant.subject is not None and self._hits(grant, "subject", grant.subject, now))
        )

    def check(self, grant: Grant, now: float) -> None:
        """
        Go on only if the grant is known to be good.

        Raises:
            TokenRevoked: It was taken back.
            BackendError: Whether it was cannot be told: the book is old.
        """
        if self.revokes(grant, now):
            raise TokenRevoked(REVOKED_MESSAGE)
        if self.is_stale(now):
            raise BackendError("Whether tokens were revoked cannot be read now; try again.")

    def is_stale(self, now: float) -> bool:
        """Tell whether the book is too old to let anybody in."""
        return now - self.read_at > STALE_SECONDS

    def _hits(self, grant: Grant, kind: RevocationKind, value: str, now: float) -> bool:
        found = self._entries.get((grant.environment_id, kind, value))
        return found is not None and found[0] <= now and grant.issued_at < found[1]
