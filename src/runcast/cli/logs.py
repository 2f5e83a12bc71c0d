"""What the process logs: lines for people, or one JSON object a line, on standard error."""

import json
import logging
import sys
from datetime import UTC, datetime

from runcast.settings import Settings

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# These say at INFO what is of use only to those who work on them.
_CHATTY = ("httpx", "httpcore", "asyncio", "uvicorn.error")


class JsonFormatter(logging.Formatter):
    """
    One JSON object for each record: time, level, logger, message, and exception if any.

    ``more`` is in each.
    """

    def __init__(self, **more: object) -> None:
        super().__init__()
        self._more = more

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._more,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure_logs(settings: Settings, *, worker: int | None = None) -> None:
    """Set up logging for the whole process, which may be a worker with a number."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter(**{} if worker is None else {"worker": worker}))
    else:
        text = _TEXT if worker is None else _TEXT.replace("%(name)s", f"worker {worker} %(name)s")
        handler.setFormatter(logging.Formatter(text))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
