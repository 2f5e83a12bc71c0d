"""Which request a task works for, or a connection that it opened: told with all that it logs."""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
