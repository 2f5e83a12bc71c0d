"""Statuses: what is stored, what clients read, and how runs move."""

import itertools
import re

import pytest

from runcast.core.status import (
    FINAL_STATUSES,
    PUBLIC_STATUSES,
    RAW_STATUSES,
    STARTED_STATUSES,
    ApiVersion,
    may_move,
    public_status,
    raw_from_any,
    raw_statuses,
    status_flags,
)
from runcast.errors import InvalidBody, InvalidParameter

NEW, OLD = ApiVersion.V2025_07_16, ApiVersion.UNVERSIONED

# The table of the wire contract, section 2.7: raw, 4.x clients, 3.3 clients.
TABLE = """
DELAYED                 DELAYED          DELAYED
PENDING                 QUEUED           QUEUED
PENDING_VERSION         PENDING_VERSION  WAITING_FOR_DEPLOY
WAITING_FOR_DEPLOY      PENDING_VERSION  WAITING_FOR_DEPLOY
DEQUEUED                DEQUEUED         EXECUTING
EXECUTING               EXECUTING        EXECUTING
RETRYING_AFTER_FAILURE  EXECUTING        REATTEMPTING
WAITING_TO_RESUME       WAITING          FROZEN
PAUSED                  WAITING          FROZEN
CANCELED                CANCELED         CANCELED
SYSTEM_FAILURE          SYSTEM_FAILURE   SYSTEM_FAILURE
CRASHED                 CRASHED          CRASHED
EXPIRED                 EXPIRED          EXPIRED
TIMED_OUT               TIMED_OUT        TIMED_OUT
INTERRUPTED             FAILED           INTERRUPTED
COMPLETED_SUCCESSFULLY  COMPLETED        COMPLETED
COMPLETED_WITH_ERRORS   FAILED           FAILED
"""
ROWS = [line.split() for line in TABLE.split("\n") if line]


@pytest.mark.parametrize(("raw", "new", "old"), ROWS)
def test_each_generation_reads_the_names_it_knows(raw: str, new: str, old: str) -> None:
    assert public_status(raw, NEW) == new
    assert public_status(raw, OLD) == old


def test_the_table_has_every_status() -> None:
    assert {row[0] for row in ROWS} == RAW_STATUSES
    assert {name for row in ROWS for name in row[1:]} == PUBLIC_STATUSES


@pytest.mark.parametrize(
    ("header", "api"), [(None, OLD), ("", OLD), ("2025-07-16", NEW), ("2027-01-01", NEW)]
)
def test_any_version_in_the_header_means_a_newer_client(
    header: str | None, api: ApiVersion
) -> None:
    assert ApiVersion.from_header(header) is api


@pytest.mark.parametrize(
    ("words", "raws"),
    [
        (["QUEUED"], ("PENDING",)),
        (["WAITING"], ("WAITING_TO_RESUME",)),
        (["FROZEN"], ("PAUSED", "WAITING_TO_RESUME")),
        (["REATTEMPTING"], ("RETRYING_AFTER_FAILURE",)),
        (["COMPLETED", "FAILED"], ("COMPLETED_SUCCESSFULLY", "COMPLETED_WITH_ERRORS")),
        (["FROZEN", "WAITING"], ("PAUSED", "WAITING_TO_RESUME")),
        (["PENDING_VERSION", "CANCELED"], ("CANCELED", "PENDING_VERSION")),
        ([], ()),
    ],
)
def test_filter_words_stand_for_raw_statuses(words: list[str], raws: tuple[str, ...]) -> None:
    assert raw_statuses(words) == raws


@pytest.mark.parametrize("word", sorted(PUBLIC_STATUSES))
def test_every_public_word_filters_for_something_shown_under_it(word: str) -> None:
    shown = {public_status(raw, api) for raw in raw_statuses([word]) for api in (NEW, OLD)}
    assert word in shown


@pytest.mark.parametrize("word", ["PENDING", "queued", "", "nonsense\x00é" * 100])
def test_other_words_are_refused_with_those_allowed(word: str) -> None:
    with pytest.raises(InvalidParameter, match="COMPLETED, CRASHED") as refusal:
        raw_statuses(["QUEUED", word])
    assert refusal.value.message.isascii()
    assert len(refusal.value.message) < 800


@pytest.mark.parametrize("raw", sorted(RAW_STATUSES))
def test_a_raw_name_means_itself(raw: str) -> None:
    assert raw_from_any(raw) == raw


@pytest.mark.parametrize(
    ("public", "raw"),
    [
        ("QUEUED", "PENDING"),
        ("WAITING", "WAITING_TO_RESUME"),
        ("FROZEN", "PAUSED"),
        ("REATTEMPTING", "RETRYING_AFTER_FAILURE"),
        ("COMPLETED", "COMPLETED_SUCCESSFULLY"),
        ("FAILED", "COMPLETED_WITH_ERRORS"),
    ],
)
def test_a_public_name_means_the_plainest_raw_one(public: str, raw: str) -> None:
    assert raw_from_any(public) == raw


@pytest.mark.parametrize("name", sorted(PUBLIC_STATUSES))
def test_every_public_name_can_be_given(name: str) -> None:
    assert name in {public_status(raw_from_any(name), api) for api in (NEW, OLD)}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InvalidBody, match=re.escape("'DONE' is not a status; use CANCELED")):
        raw_from_any("DONE")


@pytest.mark.parametrize(("old", "new"), list(itertools.product(sorted(RAW_STATUSES), repeat=2)))
def test_moves(old: str, new: str) -> None:
    if old in FINAL_STATUSES:
        expected = False
    elif new in FINAL_STATUSES or new == old:
        expected = True
    elif old in STARTED_STATUSES:
        expected = new in STARTED_STATUSES | {"PENDING", "DEQUEUED"}
    else:
        expected = (old, new) != ("DEQUEUED", "DELAYED")
    assert may_move(old, new) is expected


@pytest.mark.parametrize("api", ApiVersion)
@pytest.mark.parametrize("raw", sorted(RAW_STATUSES))
def test_a_run_is_final_or_in_exactly_one_unfinished_state(raw: str, api: ApiVersion) -> None:
    flags = status_flags(raw, api)
    unfinished = [flags["isQueued"], flags["isExecuting"], flags["isWaiting"]]
    assert flags["isCompleted"] is (raw in FINAL_STATUSES)
    assert sum(unfinished) == (not flags["isCompleted"])
    assert flags["isSuccess"] is (raw == "COMPLETED_SUCCESSFULLY")
    assert flags["isFailed"] is (flags["isCompleted"] and not flags["isSuccess"])
    assert flags["isCancelled"] is (raw == "CANCELED")


def test_a_paused_run_waits_for_new_clients_and_executes_for_old_ones() -> None:
    assert status_flags("PAUSED", NEW)["isWaiting"]
    assert status_flags("PAUSED", OLD)["isExecuting"]
