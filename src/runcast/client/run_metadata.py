"""``run.metadata``: changing the metadata of a run without waiting for it."""

import asyncio
import logging
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

from runcast.client.errors import (
    ApiError,
    BufferFull,
    ConnectionLost,
    InvalidArgument,
    RuncastError,
    ServerError,
)
from runcast.client.gateway_http import GatewayHttp
from runcast.client.json_text import plain
from runcast.client.metadata_buffer import MetadataBuffer, Operation
from runcast.core.metadata import Operation as CoreOperation, apply_operations, parse_operations
from runcast.errors import GatewayError

logger = logging.getLogger("runcast.client")

_FLUSH_SECONDS = 1.0
_MAX_WAITING = 10_000
_MAX_UNAPPLIED = 256
_MAX_SENT = 1_000  # operations of one kind of target in one request
_BODY_OF_TARGET = {"self": "operations", "parent": "parentOperations", "root": "rootOperations"}


class MetadataChanges:
    """
    Changes one object of metadata: that of the run, of its parent, or of its root.

    All methods but ``flush`` return at once, can be chained, and may be called from any thread:
    changes are collected and sent every second, and when the run is finished. A key that starts
    with ``$.`` is a path, ``$.steps.upload``.

    Every method raises `InvalidArgument` for what metadata cannot hold, and `BufferFull` when
    10,000 changes wait because the gateway cannot be reached.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self._buffer = MetadataBuffer()

    def set(self, key: str, value: Any) -> Self:
        """Set a key."""
        return self.add({"type": "set", "key": key, "value": plain(value, "The value")})

    def delete(self, key: str) -> Self:
        """Delete a key; one that is not there is no error."""
        return self.add({"type": "delete", "key": key})

    def append(self, key: str, value: Any) -> Self:
        """Append to a list, which is made if it is not there."""
        return self.add({"type": "append", "key": key, "value": plain(value, "The value")})

    def remove(self, key: str, value: Any) -> Self:
        """Remove all equal elements from a list."""
        return self.add({"type": "remove", "key": key, "value": plain(value, "The value")})

    def increment(self, key: str, by: int | float = 1) -> Self:
        """Add to a number; what is none counts as 0."""
        return self.add({"type": "increment", "key": key, "value": plain(by, "The number")})

    def decrement(self, key: str, by: int | float = 1) -> Self:
        """Subtract from a number."""
        return self.increment(key, -by)

    def replace(self, metadata: Mapping[str, Any]) -> Self:
        """Replace all of it."""
        return self.add({"type": "update", "value": plain(dict(metadata), "The metadata")})

    def add(self, operation: Operation) -> Self:
        """Collect an operation as the gateway reads it."""
        with self.lock, _argument_errors():
            self._check(operation)
            if len(self._buffer) >= _MAX_WAITING:
                raise BufferFull(
                    f"{_MAX_WAITING} changes of metadata wait for the gateway; it does not "
                    "answer, or changes come too fast."
                )
            self._buffer.add(operation)
        return self

    def _check(self, operation: Operation) -> None:
        parse_operations([operation])


class RunMetadata(MetadataChanges):
    """
    The metadata of a run that is carried out here; ``parent`` and ``root`` reach those above it.

    A run without parent is its own parent and root.
    """

    def __init__(self, http: GatewayHttp, path: str, stored: Mapping[str, Any]) -> None:
        super().__init__(threading.Lock())
        self.parent = MetadataChanges(self.lock)
        self.root = MetadataChanges(self.lock)
        self._http = http
        self._path = path
        self._current = dict(stored)
        self._unapplied: list[CoreOperation] = []  # applied when somebody looks, or many wait
        self._sending: tuple[dict[str, list[Operation]], str] | None = None
        self._refusal: ApiError | None = None
        self._flushing = asyncio.Lock()
        self._flusher: asyncio.Task[None] | None = None

    def current(self) -> dict[str, Any]:
        """All of it, as it was when the run was taken, with the changes made here."""
        with self.lock:
            self._apply()
            copied: dict[str, Any] = plain(self._current, "The metadata")
        return copied

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, as in `current`."""
        return self.current().get(key, default)

    async def flush(self) -> None:
        """
        Send all changes now.

        Raises:
            ApiError: The gateway refused some, now or in the background; those are lost.
            ConnectionLost: It could not be reached; the changes wait for the next flush.
        """
        async with self._flushing:
            while self._sending is not None or self._take():
                await self._send()
            if self._refusal is not None:
                refusal, self._refusal = self._refusal, None
                raise refusal

    def start(self) -> None:
        """Begin to flush in the background."""
        self._flusher = asyncio.create_task(self._flush_regularly())

    async def stop(self) -> None:
        """End flushing in the background; what waits stays for `flush`."""
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            try:
                await self._flushing.acquire()  # a request cut short would have an unknown end
                self._flushing.release()
            finally:
                flusher.cancel()
            with suppress(asyncio.CancelledError):
                await flusher

    def _check(self, operation: Operation) -> None:
        self._unapplied += parse_operations([operation])
        if len(self._unapplied) >= _MAX_UNAPPLIED:
            self._apply()

    def _apply(self) -> None:
        unapplied, self._unapplied = self._unapplied, []
        try:
            self._current = apply_operations(self._current, unapplied)
        except GatewayError:
            # The gateway will refuse one of them as well, and says so when it does.
            logger.debug("metadata is not shown as it will be")

    async def _flush_regularly(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            async with self._flushing:
                try:
                    while self._sending is not None or self._take():
                        await self._send()
                except RuncastError as error:
                    logger.warning("metadata waits for the gateway: %s", error.message)

    def _take(self) -> bool:
        with self.lock:
            buffers = {
                "self": self._buffer,
                "parent": self.parent._buffer,
                "root": self.root._buffer,
            }
            taken = {target: buffer.take(_MAX_SENT) for target, buffer in buffers.items()}
        body = {_BODY_OF_TARGET[target]: operations for target, operations in taken.items()}
        if any(taken.values()):
            self._sending = (body, str(uuid.uuid4()))
        return self._sending is not None

    async def _send(self) -> None:
        """Send what was taken, which stays for the next time when the gateway does not answer."""
        assert self._sending is not None
        body, key = self._sending
        try:
            # The same key for the same operations, so that a gateway can tell a repetition.
            await self._http.send(
                "PUT", self._path, body, {"x-trigger-request-idempotency-key": key}
            )
        except (ConnectionLost, ServerError):
            raise
        except ApiError as error:
            # It would be refused again, and everything behind it with it.
            logger.warning("metadata was refused: %s", error.message)
            self._refusal = error
        self._sending = None


@contextmanager
def _argument_errors() -> Iterator[None]:
    try:
        yield
    except GatewayError as error:
        raise InvalidArgument(error.message.removeprefix("operations[0].")) from None
