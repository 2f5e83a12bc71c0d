"""The key by which a client names a request that it may send again, when the answer was lost."""

import hashlib
from collections.abc import Mapping

REQUEST_KEY = "x-trigger-request-idempotency-key"
REQUEST_KEY_HEADER = {REQUEST_KEY: "Names the request: sent again, it has no second effect."}


def request_digest(headers: Mapping[str, str], target: str) -> str | None:
    """Name a request that may be sent again, by its key and what it is about; None: it has none."""
    key = headers.get(REQUEST_KEY)
    return hashlib.sha256(f"{target}\0{key}".encode()).hexdigest() if key else None
