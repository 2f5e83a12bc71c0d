"""Answers that are no success: who may say what."""

import orjson

from chaos.feed import Feed
from chaos.http import Answer
from chaos.oracle import Oracle, Told

_PASSING = frozenset({429, 502, 503, 504})


async def read_refusal(answer: Answer, whose: Told, oracle: Oracle, feed: Feed | None) -> int:
    """
    Read why a request was refused, and object where nobody had a reason; gives the status.

    Args:
        whose: For the objection.
        feed: What was to be followed, where the status depends on how a run is.
    """
    status = answer.status
    body = await answer.body()
    try:
        code = orjson.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        code = "proxy"  # nginx has pages of its own
    oracle.counts[f"refused {status} {code}"] += 1
    if status in _PASSING or (status, code) == (401, "expired_token"):
        return status
    if status in (403, 404) and feed is not None and feed.wish.run:
        oracle.see_refused(feed, status)
        return status
    oracle.object(whose, "refused", f"{status} {code}")
    return status
