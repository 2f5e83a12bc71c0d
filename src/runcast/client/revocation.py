"""A revocation as the gateway tells it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runcast.client.errors import UnexpectedAnswer


@dataclass(frozen=True, slots=True)
class Revocation:
    """
    Public tokens that were taken back.

    Attributes:
        token_id: Of one token; or else
        subject: those of a subject; without both, all of the environment.
        issued_before: Of a subject or an environment, tokens issued earlier.
        expires_at: By then all that it hits has expired, and it is forgotten.
    """

    id: str
    token_id: str | None
    subject: str | None
    issued_before: datetime | None
    created_at: datetime
    expires_at: datetime


def revocation_from(told: dict[str, Any]) -> Revocation:
    """
    Read a revocation.

    Raises:
        UnexpectedAnswer: It is none.
    """
    try:
        before = told.get("issuedBefore")
        return Revocation(
            told["id"],
            told.get("tokenId"),
            told.get("subject"),
            None if before is None else datetime.fromisoformat(before),
            datetime.fromisoformat(told["createdAt"]),
            datetime.fromisoformat(told["expiresAt"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer("The gateway sent a revocation that cannot be read.") from error
