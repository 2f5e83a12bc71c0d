"""The documentation says what the code does, where that can be compared."""

import re
from pathlib import Path

import runcast.core.command
import runcast.errors
from runcast.core.status import RAW_STATUSES, ApiVersion, public_status
from runcast.errors import GatewayError

DOCS = Path(__file__).parents[2] / "docs"


def documented_errors() -> dict[str, tuple[int, int]]:
    text = (DOCS / "protocol.md").read_text().split("## Errors", 1)[1]
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    return {code: (int(status), int(close)) for code, status, close in rows}


def real_errors() -> dict[str, tuple[int, int]]:
    return {
        each.code: (each.http_status, each.close_code)
        for module in (runcast.errors, runcast.core.command)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, GatewayError)
    }


def test_the_table_of_errors_is_complete_and_true() -> None:
    assert documented_errors() == real_errors()


def test_every_code_is_of_one_error() -> None:
    classes = [
        each
        for each in vars(runcast.errors).values()
        if isinstance(each, type) and issubclass(each, GatewayError)
    ]
    assert len({each.code for each in classes}) == len(classes)


def test_close_codes_say_by_their_range_whether_to_come_back() -> None:
    for _, close_code in real_errors().values():
        assert 4000 <= close_code < 5000


def test_the_table_of_statuses_is_complete_and_true() -> None:
    text = (DOCS / "protocol.md").read_text().split("## Statuses", 1)[1].split("\n## ", 1)[0]
    told = {}
    for raws, public in re.findall(r"^\| (`[A-Z_`, ]+) \| (.+?) \|", text, re.MULTILINE):
        for raw in re.findall(r"[A-Z_]+", raws):
            told[raw] = raw if public == "the same" else public.strip("`")
    assert told == {raw: public_status(raw, ApiVersion.V2025_07_16) for raw in RAW_STATUSES}
