"""What a subscription asks for: one run, runs with tags, a batch, a task, or all runs."""

from dataclasses import dataclass

from runcast.core.run import RunFacets
from runcast.errors import InvalidSelector

MAX_TAGS = 10
MAX_ID_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Selector:
    """
    A condition on runs of one environment; all that is given must hold.

    Nothing given means every run of the environment. ``tags`` means all of these tags, and is
    kept sorted and distinct so that equal questions are equal values. ``created_after`` is Unix
    time in seconds, inclusive.

    Raises:
        InvalidSelector: A value is empty, too long, or combined with ``run_id``.
    """

    environment_id: str
    run_id: str | None = None
    tags: tuple[str, ...] = ()
    task: str | None = None
    batch_id: str | None = None
    created_after: float | None = None

    def __post_init__(self) -> None:
        if self.run_id is not None and (self.tags or self.task or self.batch_id):
            raise InvalidSelector("Ask for one run by its id alone, or for many by tags or task.")
        for name in (self.run_id, self.task, self.batch_id):
            if name is not None and not 0 < len(name) <= MAX_ID_LENGTH:
                raise InvalidSelector(f"Ids and tasks have 1 to {MAX_ID_LENGTH} characters.")
        object.__setattr__(self, "tags", tuple(sorted(set(self.tags))))
        if len(self.tags) > MAX_TAGS:
            raise InvalidSelector(f"A run has at most {MAX_TAGS} tags; ask for fewer.")
        for tag in self.tags:
            if not 0 < len(tag) <= 128 or any(ord(character) < 32 for character in tag):
                raise InvalidSelector("A tag has 1 to 128 characters and no control characters.")
        for name in (self.run_id, self.task, self.batch_id, *self.tags):
            if name is not None and not _is_storable(name):
                raise InvalidSelector("Ids, tasks and tags are Unicode text without NUL.")

    def matches(self, facets: RunFacets) -> bool:
        """Tell whether a run with these facets is asked for."""
        return (
            self.environment_id == facets.environment_id
            and (self.run_id is None or self.run_id == facets.id)
            and (self.task is None or self.task == facets.task)
            and (self.batch_id is None or self.batch_id == facets.batch_id)
            and (self.created_after is None or self.created_after <= facets.created_at)
            and all(tag in facets.tags for tag in self.tags)
        )

    @property
    def index_key(self) -> tuple[str, str, str]:
        """The one key under which a fan-out index files this selector; see `index_keys`."""
        if self.run_id is not None:
            return (self.environment_id, "run", self.run_id)
        if self.batch_id is not None:
            return (self.environment_id, "batch", self.batch_id)
        if self.tags:
            return (self.environment_id, "tag", self.tags[0])
        if self.task is not None:
            return (self.environment_id, "task", self.task)
        return (self.environment_id, "all", "")


def index_keys(facets: RunFacets) -> list[tuple[str, str, str]]:
    """Every key under which selectors that match these facets can be filed."""
    environment = facets.environment_id
    keys = [(environment, "run", facets.id), (environment, "all", "")]
    keys.append((environment, "task", facets.task))
    keys.extend((environment, "tag", tag) for tag in facets.tags)
    if facets.batch_id is not None:
        keys.append((environment, "batch", facets.batch_id))
    return keys


def _is_storable(text: str) -> bool:
    """Tell whether Postgres can hold the text: no NUL and no lone surrogates."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
