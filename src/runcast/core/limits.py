"""Every bound of a gateway in one value; docs/settings.md lists them with their settings."""

from dataclasses import dataclass

from runcast.core.rate import Rate

_PUBLIC_TOKEN_RATE = Rate(refill=600, seconds=60.0, burst=600)
_SECRET_KEY_RATE = Rate(refill=10_000, seconds=10.0, burst=20_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds, the rest are counts."""

    max_body_bytes: int = 3 * 1024 * 1024
    max_metadata_bytes: int = 256 * 1024
    max_batch_items: int = 500
    max_header_bytes: int = 64 * 1024
    request_timeout_seconds: float = 30.0
    # How long a triggered run may wait for its start, unless it says so itself; 0: for ever.
    default_ttl_seconds: int = 0

    # Requests to /api; None: without limit.
    public_token_rate: Rate | None = _PUBLIC_TOKEN_RATE
    secret_key_rate: Rate | None = _SECRET_KEY_RATE

    max_connections: int = 100_000
    # Of each environment, at all gateways together; 0: no limit but that of the gateways.
    max_environment_connections: int = 0
    max_subscriptions_per_connection: int = 256
    max_command_bytes: int = 64 * 1024
    authenticate_timeout_seconds: float = 10.0

    snapshot_page_runs: int = 500
    # What waits in memory for a reader that is behind; what is more, it reads again later.
    max_backlog_runs: int = 256
    max_backlog_bytes: int = 4 * 1024 * 1024
    max_concurrent_catch_ups: int = 8
    write_buffer_bytes: int = 64 * 1024
    heartbeat_seconds: float = 15.0
    stall_timeout_seconds: float = 30.0
    drain_seconds: float = 5.0

    # Of polls: how long one waits for news, how large an answer may grow before it is sent in
    # parts, and how far back feeds of many runs reach whose client does not say (0: all).
    poll_hold_seconds: float = 20.0
    poll_answer_bytes: int = 8 * 1024 * 1024
    shape_window_seconds: float = 86400.0

    max_chunk_bytes: int = 1024 * 1024
    max_stream_bytes: int = 256 * 1024 * 1024
    max_streams_per_run: int = 100
    stream_retention_seconds: float = 86400.0
    # A connected writer counts as such for so long after its gateway was last heard of.
    stream_lease_seconds: float = 10.0
    stream_tail_bytes: int = 256 * 1024
    stream_page_bytes: int = 256 * 1024

    max_object_bytes: int = 64 * 1024 * 1024
    # How long an object stays that no run refers to.
    unused_object_seconds: float = 86400.0

    default_token_seconds: float = 15 * 60.0
    max_token_seconds: float = 30 * 86400.0
    key_cache_seconds: float = 10.0
    # Revocations of single tokens and of subjects that one environment may have at once.
    max_revocations: int = 10_000
    # Columns that public tokens never see, for example {"payload", "output"}.
    withheld_columns: frozenset[str] = frozenset()
