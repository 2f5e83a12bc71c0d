"""What a document tells people to write and to type."""

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"\*\*`([^`]+)`\*\*")


@dataclass(frozen=True)
class Block:
    """A block of code, and what is said between it and the one before."""

    language: str
    code: str
    said: str

    @property
    def file(self) -> str | None:
        """The file that it is for: named last before it, in bold; none for commands."""
        names = _FILE.findall(self.said)
        return names[-1] if names and self.language != "sh" else None


def blocks(text: str) -> list[Block]:
    """Every block of code of a document, or of a part of one, in order."""
    found, end = [], 0
    for match in _FENCE.finditer(text):
        found.append(Block(match[1], match[2], text[end : match.start()]))
        end = match.end()
    return found


def section(document: Path, heading: str) -> str:
    """The part of a document below a heading of the second level."""
    _, found, rest = document.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found, f"{document.name} has no section {heading}"
    return rest.partition("\n## ")[0]
