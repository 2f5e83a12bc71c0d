"""Requests that were answered: one that is sent again for a while gets its first answer."""

from dataclasses import dataclass

from runcast.postgres.database import Transaction

# What makes something is remembered for a day. What changes something comes often, every second
# from some runs: longer than any client tries again is enough.
CREATION_SECONDS = 86400.0
CHANGE_SECONDS = 600.0

# An answer that is too old is claimed anew; whoever comes second waits for the first to commit.
_CLAIM = """
    INSERT INTO @schema@.answered_requests AS old (environment_id, request, answer_id, good_until)
    VALUES ($1, $2, $3, now() + make_interval(secs => $4))
    ON CONFLICT (environment_id, request) DO UPDATE
    SET answer_id = excluded.answer_id, cached = false, good_until = excluded.good_until
    WHERE old.good_until < now()
    RETURNING answer_id"""
_READ = """
    SELECT answer_id, cached FROM @schema@.answered_requests
    WHERE environment_id = $1 AND request = $2"""
_KEEP = """
    UPDATE @schema@.answered_requests SET answer_id = $3, cached = $4
    WHERE environment_id = $1 AND request = $2"""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request was answered with, by its id, and whether it was there before."""

    id: str
    cached: bool


async def claim_request(
    transaction: Transaction,
    environment_id: str,
    request: str,
    answer_id: str,
    *,
    seconds: float = CREATION_SECONDS,
) -> Answered | None:
    """
    Give what a request was answered with before.

    None: nothing yet. Then it is kept for ``seconds``, with the transaction, as answered with
    ``answer_id``.
    """
    if await transaction.fetch(_CLAIM, environment_id, request, answer_id, seconds):
        return None
    rows = await transaction.fetch(_READ, environment_id, request)
    return Answered(rows[0]["answer_id"], rows[0]["cached"])


async def keep_answer(
    transaction: Transaction, environment_id: str, request: str, answer: Answered
) -> None:
    """Keep another answer of a request than the one that it was claimed with."""
    await transaction.fetch(_KEEP, environment_id, request, answer.id, answer.cached)
