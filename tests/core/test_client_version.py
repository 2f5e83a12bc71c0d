"""Which official clients read batches of parts."""

import pytest

from runcast.core.client_version import reads_batches


@pytest.mark.parametrize("version", ["4.1.0", "4.3.1", "4.8.3", "5.0.0-beta.1", "10.0", "4.10.2"])
def test_those_from_4_1_on_do(version: str) -> None:
    assert reads_batches(version)


@pytest.mark.parametrize("version", [None, "", "3.3.17", "4.0.9", "4", "v4.1.0", "\u0664.1"])
def test_older_ones_and_those_that_do_not_say_do_not(version: str | None) -> None:
    assert not reads_batches(version)
