"""``client.streams``: reading what runs stream."""

from runcast.client.asked import stream
from runcast.client.feeds import Feeds
from runcast.client.run import RunHandle
from runcast.client.stream_feed import From
from runcast.client.stream_reading import StreamReading


class Streams:
    """Reads streams; a `RunWriter` writes them."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds

    def read(self, run: str | RunHandle, key: str, from_: From = "start") -> StreamReading:
        """
        Read a stream of a run; one that nobody has written to yet may begin later.

        Args:
            run: The run, or its id.
            key: Of the stream, such as ``llm``.
            from_: ``start``, ``latest`` (skip what exists), or the offset of the first part wanted.

        Raises:
            InvalidArgument: ``from_`` is nothing of that.
        """
        run_id = run.id if isinstance(run, RunHandle) else run
        return StreamReading(self._feeds, stream(run_id, key), from_)
