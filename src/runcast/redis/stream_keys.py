"""Names of a stream's keys in Redis."""

from urllib.parse import quote

from runcast.core.chunk import StreamName


class StreamKeys:
    """
    Where streams are: all keys of a run share a hash tag, so that a cluster keeps them together.

    Args:
        prefix: What all keys begin with; deployments that share a Redis have different ones.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def run(self, run_id: str) -> str:
        """The set of a run's streams."""
        # Percent-encoded: a brace would end the hash tag, a colon the name.
        return f"{self._prefix}{{{quote(run_id, safe='')}}}"

    def head(self, name: StreamName) -> str:
        """The first of a stream's keys, and the channel of its news."""
        return f"{self.run(name.run_id)}:{quote(name.key, safe='')}"

    def all_of(self, name: StreamName) -> tuple[str, str, str, str]:
        """The keys that scripts take: head, log, presences, and the run's set."""
        head = self.head(name)
        return head, f"{head}:log", f"{head}:open", self.run(name.run_id)
