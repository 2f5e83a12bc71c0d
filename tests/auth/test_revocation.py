"""The book of revocations: which grants are hit, from when, and until when it is remembered."""

from datetime import UTC, datetime
from typing import Any

import pytest

from runcast.auth.grant import Grant
from runcast.auth.revocation import STALE_SECONDS, Revocation, RevocationBook, RevocationKind
from runcast.errors import BackendError, TokenRevoked
from tests.support.grants import make_grant

NOW = 1_800_000_000.0
ISSUED = NOW - 60


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def revocation(kind: RevocationKind, value: str = "", **changes: Any) -> Revocation:
    before = at(NOW) if kind in ("subject", "environment") else None
    fields: dict[str, Any] = {
        "id": "revocation_1",
        "environment_id": "env_1",
        "issued_before": before,
        "created_at": at(NOW),
        "since": at(NOW),
        "kept_until": at(NOW + 1000),
    }
    return Revocation(kind=kind, value=value, **(fields | changes))


def book(*revocations: Revocation) -> RevocationBook:
    kept = RevocationBook()
    kept.receive(revocations, NOW)
    return kept


def token(**fields: Any) -> Grant:
    plain: dict[str, Any] = {"subject": "user_1", "issued_at": ISSUED}
    return make_grant(**(plain | fields))


@pytest.mark.parametrize(
    ("kind", "value"),
    [("token", "token_1"), ("subject", "user_1"), ("environment", ""), ("key", "key_1")],
)
def test_each_kind_hits_what_it_names_in_its_environment(kind: RevocationKind, value: str) -> None:
    revoked = book(revocation(kind, value))
    assert revoked.revokes(token(), NOW)
    assert not revoked.revokes(token(environment_id="env_2"), NOW)
    other = token(token_id="token_2", subject="user_2", key_hash="key_2", issued_at=NOW)
    assert not revoked.revokes(other, NOW)
    with pytest.raises(TokenRevoked) as refused:
        revoked.check(token(), NOW)
    assert (refused.value.code, refused.value.http_status) == ("token_revoked", 401)
    revoked.check(other, NOW)


@pytest.mark.parametrize(("kind", "value"), [("subject", "user_1"), ("environment", "")])
def test_what_was_issued_at_the_bound_or_later_is_good(kind: RevocationKind, value: str) -> None:
    revoked = book(revocation(kind, value))
    assert revoked.revokes(token(issued_at=NOW - 1), NOW)
    assert not revoked.revokes(token(issued_at=NOW), NOW)
    assert revoked.revokes(token(issued_at=0.0), NOW), "who does not say is hit"


def test_a_token_without_subject_is_hit_by_none() -> None:
    assert not book(revocation("subject", "user_1")).revokes(token(subject=None), NOW)


def test_a_secret_key_is_hit_as_a_key_alone() -> None:
    key = Grant.for_secret_key("env_1", "key_1")
    assert not book(revocation("environment"), revocation("token", "key_1")).revokes(key, NOW)
    assert book(revocation("key", "key_1")).revokes(key, NOW)


def test_a_key_that_ends_later_is_told_once_when_it_does() -> None:
    kept = RevocationBook()
    assert not kept.receive([revocation("key", "key_1", since=at(NOW + 10))], NOW)
    assert not kept.revokes(token(), NOW + 9)
    assert not kept.receive_time(NOW + 9)
    assert kept.receive_time(NOW + 10)
    assert not kept.receive_time(NOW + 10)
    assert kept.revokes(token(), NOW + 10)


def test_what_is_lifted_or_replaced_counts_no_more() -> None:
    kept = book(revocation("token", "token_1"))
    assert not kept.receive([revocation("token", "token_1", lifted=True)], NOW)
    assert not kept.revokes(token(), NOW)
    assert len(kept) == 0
    kept.receive([revocation("token", "token_1")], NOW)
    kept.begin_anew()
    assert not kept.revokes(token(), NOW)


def test_what_can_hit_nothing_any_more_is_forgotten() -> None:
    kept = book(revocation("token", "token_1"), revocation("subject", "u", kept_until=at(NOW + 1)))
    kept.receive([revocation("token", "late", kept_until=at(NOW))], NOW)
    assert len(kept) == 2
    kept.forget_expired(NOW + 1)
    assert len(kept) == 1


def test_an_old_book_lets_nobody_in_but_still_knows_who_is_revoked() -> None:
    kept = book(revocation("token", "token_1"))
    kept.check(token(token_id="good"), NOW)
    kept.read_at = NOW
    kept.check(token(token_id="good"), NOW + STALE_SECONDS)
    with pytest.raises(BackendError):
        kept.check(token(token_id="good"), NOW + STALE_SECONDS + 0.1)
    with pytest.raises(TokenRevoked):
        kept.check(token(), NOW + STALE_SECONDS + 0.1)
