"""Grants as text, for another gateway."""

from typing import Any

import pytest

from runcast.auth.grant import Grant
from tests.support.grants import make_grant


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"subject": "user_1", "skip_columns": ("payload", "output"), "one_time": True},
        {"expires_at": 1_800_000_000.5, "scopes": ()},
    ],
)
def test_another_gateway_reads_the_same_grant(fields: dict[str, Any]) -> None:
    grant = make_grant(**({"scopes": ["read:runs:a", "read:tags"]} | fields))
    assert Grant.from_json(grant.to_json()) == grant


def test_that_of_a_secret_key_too() -> None:
    grant = Grant.for_secret_key("env_1", "hash")
    assert Grant.from_json(grant.to_json()) == grant
