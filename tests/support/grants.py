"""Grants for tests: one of a public token, changed where the test cares."""

from collections.abc import Iterable
from typing import Any

from runcast.auth.grant import Grant
from runcast.core.scope import compile_scopes


def make_grant(scopes: Iterable[str] = ("read:runs",), **fields: Any) -> Grant:
    """A grant as a public token gives it, which never expires unless told."""
    plain: dict[str, Any] = {
        "environment_id": "env_1",
        "expires_at": None,
        "token_hash": "hash_1",
        "token_id": "token_1",
        "key_hash": "key_1",
        "issued_at": 1_800_000_000.0,
    }
    scopes = frozenset(scopes)
    return Grant(permissions=compile_scopes(scopes), scopes=scopes, **(plain | fields))
