"""What a token permits: the grammar of scopes, and permissions compiled from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

# Whoever may write may also do these.
_IMPLIED_BY_WRITE = frozenset({"trigger", "batchTrigger", "update"})


class HasRunFacets(Protocol):
    """The facts about a run that decide who may read it."""

    @property
    def id(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def batch_id(self) -> str | None: ...


class Resource(NamedTuple):
    """What an action is done to: one thing of a type, or without ``id`` the type as a whole."""

    type: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """
    One permission as its token spells it: ``action[:type[:id]]``.

    An empty id is an id: ``read:runs:`` is what a template leaves when its variable is empty, and
    must not open every run.
    """

    action: str
    type: str | None = None
    id: str | None = None

    def format(self) -> str:
        """Write the scope as `parse_scope` reads it."""
        return ":".join(part for part in (self.action, self.type, self.id) if part is not None)

    def covers(self, action: str, resource: Resource) -> bool:
        """
        Tell whether this scope by itself allows ``action`` on ``resource``.

        Source: wire/trigger-wire.md 1.4.
        """
        if self.action == "admin" and self.type is None:
            return True
        if self.action not in (action, "*"):
            return False
        if self.type == "all":
            return True
        return self.type == resource.type and (self.id is None or self.id == resource.id)


def parse_scope(text: str) -> Scope:
    """
    Split a scope at its first two colons; the id keeps all others.

    Every text is a scope, and one that nobody understands allows nothing: tokens may carry
    scopes that are newer than this gateway.
    """
    return Scope(*text.split(":", 2))


_ADMIN = Scope("admin")


@dataclass(frozen=True, slots=True)
class Permissions:
    """
    All that the scopes of one token allow, arranged so that reading is judged without a loop.

    Equal scopes give equal, hashable permissions: judge a change once for all who hold them.
    Made by `compile_scopes`.
    """

    scopes: frozenset[Scope]
    read_all: bool
    read_tagged: bool
    """Whether every run that has a tag may be read."""
    read_batched: bool
    """Whether every run that belongs to a batch may be read."""
    run_ids: frozenset[str]
    tasks: frozenset[str]
    tags: frozenset[str]
    batch_ids: frozenset[str]
    on_all: frozenset[str]
    """Actions that are allowed on everything."""

    def may_read(self, run: HasRunFacets) -> bool:
        """Tell whether a run may be seen: through its id, its task, any of its tags, its batch."""
        return (
            self.read_all
            or run.id in self.run_ids
            or run.task in self.tasks
            or (self.read_tagged and bool(run.tags))
            or not self.tags.isdisjoint(run.tags)
            or (run.batch_id is not None and (self.read_batched or run.batch_id in self.batch_ids))
        )

    def allows(self, action: str, resources: Iterable[Resource]) -> bool:
        """Tell whether ``action`` is allowed on at least one of the resources."""
        actions = (action, "*", "write") if action in _IMPLIED_BY_WRITE else (action, "*")
        on_all = _ADMIN in self.scopes or not self.on_all.isdisjoint(actions)
        # Looked up, not searched for: a token may have scopes by the hundred.
        return any(
            on_all
            or Scope(each, resource.type) in self.scopes
            or Scope(each, resource.type, resource.id) in self.scopes
            for resource in resources
            for each in actions
        )

    def allows_every(self, action: str, resources: Iterable[Resource]) -> bool:
        """Tell whether ``action`` is allowed on each of the resources; never so without any."""
        answers = [self.allows(action, (resource,)) for resource in resources]
        return bool(answers) and all(answers)


def compile_scopes(scopes: Iterable[str]) -> Permissions:
    """Arrange scopes for fast and repeated judgement; no scopes allow nothing."""
    parsed = frozenset(parse_scope(text) for text in scopes)

    def reads_type(kind: str) -> bool:
        return any(scope.covers("read", Resource(kind)) for scope in parsed)

    def readable_ids(kind: str) -> frozenset[str]:
        return frozenset(
            scope.id
            for scope in parsed
            if scope.action in ("read", "*") and scope.type == kind and scope.id is not None
        )

    return Permissions(
        scopes=parsed,
        # Every run has a task, so who may read all tasks may read all runs.
        read_all=reads_type("runs") or reads_type("tasks"),
        read_tagged=reads_type("tags"),
        read_batched=reads_type("batch"),
        run_ids=readable_ids("runs"),
        tasks=readable_ids("tasks"),
        tags=readable_ids("tags"),
        batch_ids=readable_ids("batch"),
        on_all=frozenset(scope.action for scope in parsed if scope.type == "all"),
    )
