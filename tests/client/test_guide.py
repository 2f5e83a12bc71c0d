"""The examples of docs/python.md, executed as they are written."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.document import blocks
from tests.support.restartable_gateway import RestartableGateway

GUIDE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = [
    block.code for block in blocks(GUIDE.read_text(encoding="utf-8")) if block.language == "python"
]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
async def test_an_example_of_the_guide_runs(gateway: RestartableGateway, example: str) -> None:
    given = {"RUNCAST_URL": gateway.url, "RUNCAST_SECRET_KEY": gateway.key, "PYTHONPATH": "src"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "default", "-c", example),
        cwd=GUIDE.parents[1],
        env=os.environ | given,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaints = await process.communicate()
    assert (process.returncode, complaints.decode()) == (0, "")


def test_the_guide_has_examples() -> None:
    assert len(EXAMPLES) == 6
