"""The documentation says what the code does, where that can be compared."""

import json
import re
import shutil
import subprocess
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
import yaml

import runcast.core.command
import runcast.errors
from runcast.app import Gateway
from runcast.core.status import RAW_STATUSES, ApiVersion, public_status
from runcast.errors import GatewayError
from runcast.settings import OTHER_VARIABLES, Settings, variables_of
from runcast.web.metrics import PROCESS
from tests.support.document import blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


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


async def real_metrics() -> dict[str, tuple[str, ...]]:
    """Metrics of a gateway with all there is, and their labels."""
    everything: Any = {
        "database_url": "postgresql://nowhere",
        "redis_url": "redis://nowhere",
        "relay": "on",
    }
    gateway = Gateway(Settings(**everything))
    await PROCESS.look()
    families: list[Any] = list(gateway.services.metrics.collect())
    return {
        family.name + ("_total" if family.type == "counter" else ""): tuple(
            getattr(family, "_labelnames", ())
        )
        for family in families
    }


def documented_metrics() -> dict[str, tuple[str, ...]]:
    text = (DOCS / "operations.md").read_text()
    cells = re.findall(r"^\| (`(?:runcast|process)_.*?`) \|", text, re.MULTILINE)
    found = re.findall(r"`([a-z_]+)(?:\{([a-z,]+)\})?`", " ".join(cells))
    return {name: tuple(labels.split(",")) if labels else () for name, labels in found}


async def test_the_tables_of_metrics_are_complete_and_true() -> None:
    assert documented_metrics() == await real_metrics()


def test_the_alerts_are_rules_of_prometheus() -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not here: install the package 'prometheus'")
    subprocess.run([promtool, "check", "rules", ROOT / "deploy/alerts.yml"], check=True)


async def test_the_runbook_names_what_there_is() -> None:
    text = (DOCS / "runbook.md").read_text()
    named = set(re.findall(r"\b(?:runcast|process)_[a-z_]+", text))
    assert len(named) > 10
    assert named <= (await real_metrics()).keys()
    assert set(re.findall(r"RUNCAST_[A-Z_]+", text)) <= {
        *OTHER_VARIABLES,
        *(variable for field in Settings.model_fields for variable in variables_of(field)),
    }


@pytest.mark.parametrize("page", ["operations.md", "runbook.md"])
def test_links_lead_somewhere(page: str) -> None:
    for path, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", (DOCS / page).read_text()):
        target = (DOCS / path).resolve() if path else DOCS / page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor


async def test_dashboard_and_alerts_ask_for_metrics_that_there_are() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        rule["expr"]
        for group in yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    real = await real_metrics()
    for expression in panels + rules:
        asked = re.findall(r"((?:runcast|process)_\w+)(?:\{([^}]*)\})?", expression)
        assert asked, expression
        for name, matchers in asked:
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            assert base in real, expression
            labels = set(re.findall(r"(\w+)\s*[=!]", matchers)) - {"le", "job"}
            assert labels <= set(real[base]), expression


@pytest.mark.parametrize(
    ("page", "example"),
    [
        ("quickstart.md", "react"),
        ("quickstart/django.md", "django"),
        ("quickstart/flask.md", "flask"),
        ("quickstart/node.md", "node"),
    ],
)
def test_what_the_quickstart_writes_is_an_example(page: str, example: str) -> None:
    told = [*dropwhile(lambda block: not block.file, blocks((DOCS / page).read_text()))]
    folder = ROOT / "examples" / example
    program = {
        path.name: path.read_text()
        for path in folder.iterdir()
        if path.is_file() and path.name != "README.md"
    }
    assert program == {block.file: block.code for block in told if block.file}
    readme = (folder / "README.md").read_text()
    for block in told:
        if block.language == "sh":
            assert block.code.splitlines()[-1] in readme.splitlines()
