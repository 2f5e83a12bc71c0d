"""
What the process logs, on standard error: lines for people, or one JSON object a line.

What a line is about (``request`` and other fields) stands behind its message, or in fields of its
own.
"""

import logging
import sys
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from runcast.hub.log_context import request_id
from runcast.settings import Settings

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# These say at INFO what is of use only to those who work on them.
_CHATTY = ("httpx", "httpcore", "asyncio", "uvicorn.error")
_NOT_FIELDS = frozenset({*RESERVED_ATTRS, "taskName"})


class TextFormatter(logging.Formatter):
    """The message, then ``name=value`` for each field."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = (f" {name}={value}" for name, value in vars(record).items() if _is_field(name))
        return super().formatMessage(record) + "".join(fields)


def log_handler(log_format: str, stream: TextIO) -> logging.Handler:
    """Write records to a stream, as ``text``, ``json``, or what fits it (``auto``)."""
    handler = logging.StreamHandler(stream)
    if log_format == "json" or (log_format == "auto" and not stream.isatty()):
        handler.setFormatter(
            JsonFormatter(
                ["levelname", "name", "message"],
                rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
                reserved_attrs=sorted(_NOT_FIELDS),
                timestamp="time",
                json_ensure_ascii=False,
            )
        )
    else:
        handler.setFormatter(TextFormatter(_TEXT))
    handler.addFilter(_name_request)
    return handler


def configure_logs(settings: Settings, *, worker: int | None = None) -> None:
    """Set up logging for the whole process, which may be a worker with a number."""
    handler = log_handler(settings.log_format, sys.stderr)
    if worker is not None:

        def name_worker(record: logging.LogRecord) -> bool:
            record.worker = worker
            return True

        handler.addFilter(name_worker)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _is_field(name: str) -> bool:
    return name not in _NOT_FIELDS and name != "asctime"


def _name_request(record: logging.LogRecord) -> bool:
    """Say which request the record is about, if it does not say so itself."""
    if not hasattr(record, "request") and (name := request_id.get()) is not None:
        record.request = name
    return True
