"""Scopes: the grammar, the matching rules, and that compiling them changes no answer."""

from dataclasses import dataclass

import pytest
from hypothesis import example, given, strategies as st

from runcast.core.run import RunFacets
from runcast.core.scope import HasRunFacets, Resource, Scope, compile_scopes, parse_scope


@dataclass(frozen=True)
class SomeRun:
    id: str = "run_1"
    task: str = "encode"
    tags: tuple[str, ...] = ()
    batch_id: str | None = None


# Few words each, so that random scopes and random runs meet often.
WORDS = ["", "run_1", "run_2", "encode", "user", "env:staging", "all", "*"]
ACTIONS = ["read", "write", "trigger", "batchTrigger", "update", "*", "admin", ""]
TYPES = ["runs", "tasks", "tags", "batch", "waitpoints", "all", "*", ""]

resources = st.builds(
    Resource, st.sampled_from(["runs", "tasks", "tags", "batch"]), st.sampled_from([None, *WORDS])
)
scope_texts = st.one_of(
    st.sampled_from(ACTIONS),
    st.builds("{}:{}".format, st.sampled_from(ACTIONS), st.sampled_from(TYPES)),
    st.builds(
        "{}:{}:{}".format,
        st.sampled_from(ACTIONS),
        st.sampled_from(TYPES),
        st.sampled_from(WORDS),
    ),
    st.text(alphabet="read:unstg*", max_size=12),
)
runs = st.builds(
    SomeRun,
    id=st.sampled_from(WORDS[1:]),
    task=st.sampled_from(WORDS[1:]),
    tags=st.lists(st.sampled_from(WORDS[1:]), max_size=3, unique=True).map(tuple),
    batch_id=st.sampled_from([None, *WORDS[1:]]),
)


def grants(text: str, action: str, kind: str, name: str | None) -> bool:
    """The rules of wire/trigger-wire.md 1.4 in their order, one scope at a time."""
    parts = text.split(":")
    if text == "admin":
        return True
    if parts[0] not in (action, "*"):
        return False
    if len(parts) < 2:
        return False
    if parts[1] == "all":
        return True
    if parts[1] != kind:
        return False
    if len(parts) == 2:
        return True
    return name is not None and ":".join(parts[2:]) == name


def opens(text: str, run: HasRunFacets) -> bool:
    """Whether one scope opens a run: any of the resources R(run) will do."""
    return (
        grants(text, "read", "runs", run.id)
        or grants(text, "read", "tasks", run.task)
        or any(grants(text, "read", "tags", tag) for tag in run.tags)
        or (run.batch_id is not None and grants(text, "read", "batch", run.batch_id))
    )


@given(st.text())
@example("")
@example("::")
@example("read:runs:")
def test_every_text_survives_parse_and_format(text: str) -> None:
    assert parse_scope(text).format() == text


def test_only_the_first_two_colons_separate() -> None:
    assert parse_scope("read:tags:env:staging") == Scope("read", "tags", "env:staging")
    assert parse_scope("read:tags::") == Scope("read", "tags", ":")
    assert parse_scope("admin") == Scope("admin")


@given(st.lists(scope_texts, max_size=5), runs)
def test_compiled_permissions_open_exactly_what_the_rules_open(
    scopes: list[str], run: SomeRun
) -> None:
    assert compile_scopes(scopes).may_read(run) == any(opens(text, run) for text in scopes)


@given(st.lists(scope_texts, max_size=4), st.sampled_from(ACTIONS), st.lists(resources, max_size=3))
def test_allows_is_the_rules_over_any_scope_and_any_resource(
    scopes: list[str], action: str, asked: list[Resource]
) -> None:
    also_write = action in ("trigger", "batchTrigger", "update")

    def one(resource: Resource) -> bool:
        return any(
            grants(text, each, *resource)
            for text in scopes
            for each in ([action, "write"] if also_write else [action])
        )

    permissions = compile_scopes(scopes)
    assert permissions.allows(action, asked) == any(one(resource) for resource in asked)
    assert permissions.allows_every(action, asked) == (
        bool(asked) and all(one(resource) for resource in asked)
    )


@given(st.lists(scope_texts, max_size=5), st.lists(scope_texts, max_size=5), runs)
def test_permissions_never_shrink_by_adding_a_scope(
    some: list[str], more: list[str], run: SomeRun
) -> None:
    if compile_scopes(some).may_read(run):
        assert compile_scopes(some + more).may_read(run)


@given(st.lists(scope_texts, max_size=6))
def test_equal_scopes_in_any_order_share_one_value(scopes: list[str]) -> None:
    backwards = compile_scopes(reversed(scopes + scopes))
    assert compile_scopes(scopes) == backwards
    assert hash(compile_scopes(scopes)) == hash(backwards)
    assert len({compile_scopes(scopes), backwards}) == 1


def test_permissions_that_differ_in_writing_are_not_equal() -> None:
    assert compile_scopes(["read:runs"]) != compile_scopes(["read:runs", "write:runs"])


@pytest.mark.parametrize(
    "scope",
    [
        "read:runs",
        "read:tasks",
        "read:all",
        "read:all:whatever",
        "*:runs",
        "*:all",
        "admin",
        "read:runs:run_1",
        "read:tasks:encode",
        "read:tags",
        "read:tags:env:staging",
        "*:tags:user",
        "read:batch",
        "read:batch:batch_1",
    ],
)
def test_any_one_matching_scope_opens_a_run(scope: str) -> None:
    run = RunFacets("env_1", "run_1", "encode", ("user", "env:staging"), "batch_1", 0.0)
    assert compile_scopes(["read:runs:run_other", scope]).may_read(run)


@pytest.mark.parametrize(
    "scope",
    [
        "",
        "read",
        "*",
        "read:",
        "read:*",
        "read:runs:",
        "read:runs:*",
        "read:runs:run_",
        "read:runs:run_10",
        "READ:runs",
        "read:run",
        "read:tags",
        "read:tags:user",
        "read:batch",
        "read:batch:",
        "write:runs",
        "write:all",
        "admin:runs",
        "admin:all",
        " admin",
        "read:deployments",
    ],
)
def test_nothing_else_opens_an_untagged_run_without_a_batch(scope: str) -> None:
    assert not compile_scopes([scope]).may_read(SomeRun())


def test_no_scopes_allow_nothing() -> None:
    nobody = compile_scopes([])
    assert not nobody.may_read(SomeRun(tags=("user",), batch_id="batch_1"))
    assert not nobody.allows("read", [Resource("runs"), Resource("runs", "run_1")])


def test_losing_a_tag_closes_the_run() -> None:
    permissions = compile_scopes(["read:tags:user"])
    assert permissions.may_read(SomeRun(tags=("other", "user")))
    assert not permissions.may_read(SomeRun(tags=("other",)))


@pytest.mark.parametrize("action", ["trigger", "batchTrigger", "update"])
def test_write_implies_the_actions_that_write(action: str) -> None:
    writer = compile_scopes(["write:tasks:encode"])
    assert writer.allows(action, [Resource("tasks", "encode")])
    assert not writer.allows(action, [Resource("tasks", "other")])
    assert not compile_scopes([f"{action}:tasks"]).allows("write", [Resource("tasks", "encode")])


def test_write_does_not_imply_read() -> None:
    assert not compile_scopes(["write:runs"]).allows("read", [Resource("runs", "run_1")])


def test_a_scope_on_one_thing_does_not_cover_its_type() -> None:
    one = compile_scopes(["read:runs:run_1"])
    assert one.allows("read", [Resource("runs", "run_1")])
    assert not one.allows("read", [Resource("runs")])


def test_every_means_each_and_at_least_one() -> None:
    permissions = compile_scopes(["batchTrigger:tasks:a", "batchTrigger:tasks:b"])
    a, b, c = (Resource("tasks", name) for name in "abc")
    assert permissions.allows_every("batchTrigger", [a, b])
    assert not permissions.allows_every("batchTrigger", [a, b, c])
    assert permissions.allows("batchTrigger", [a, b, c])
    assert not compile_scopes(["admin"]).allows_every("batchTrigger", [])
