"""A run as one line in a terminal."""

import json
from typing import Any

from rich.text import Text

from runcast.cli.console import printable

_STYLES = {
    "COMPLETED": "green",
    "EXECUTING": "cyan",
    "REATTEMPTING": "yellow",
    "WAITING": "blue",
    "FROZEN": "blue",
    "QUEUED": "white",
    "DEQUEUED": "white",
    "DELAYED": "magenta",
    "PENDING_VERSION": "magenta",
}
_FAILED = "red"
_VALUE_CHARACTERS = 48


def run_line(run: dict[str, Any]) -> Text:
    """Write time, id, task, status, metadata and tags; harmless whatever a run holds."""
    status = printable(str(run.get("status", "")))
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(printable(str(run.get("updatedAt", ""))[11:19]) + " ", "dim")
    line.append(printable(str(run.get("id", ""))) + " ", "bold")
    line.append(printable(str(run.get("taskIdentifier", ""))) + " ")
    line.append(f"{status:<12}", _STYLES.get(status, _FAILED))
    metadata = run.get("metadata")
    for key, value in metadata.items() if isinstance(metadata, dict) else ():
        line.append(f" {printable(key)}=", "dim")
        line.append(_shortened(value))
    if error := run.get("error"):
        line.append(f" {printable(str(error.get('message', '')))}", _FAILED)
    if tags := run.get("tags"):
        line.append(" " + " ".join(f"#{printable(tag)}" for tag in tags), "dim")
    return line


def _shortened(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = printable(text)
    return text if len(text) <= _VALUE_CHARACTERS else text[: _VALUE_CHARACTERS - 1] + "…"
