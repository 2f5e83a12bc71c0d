"""
Writing a stream: chunks in, stored once and in order, whatever happens to the connection.

A chunk is kept until the gateway has acknowledged it, which it does at the end of a request. So
requests are ended and begun anew every few seconds, and what is kept stays bounded. After a lost
connection the gateway is asked how far it is, and everything behind is sent again; the gateway
drops a chunk of this writer that it has already.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal
from urllib.parse import quote

import httpx

from runcast.client.backoff import Backoff
from runcast.client.chunk_buffer import ChunkBuffer
from runcast.client.errors import (
    InvalidArgument,
    RuncastError,
    RunOver,
    StreamLost,
    TokenExpired,
    UnexpectedAnswer,
)
from runcast.client.gateway_http import GatewayHttp
from runcast.client.json_text import to_json
from runcast.client.retriable import Retriable

logger = logging.getLogger("runcast.client")

Target = Literal["self", "parent", "root"]

_REQUEST_SECONDS = 3.0
_MAX_CHUNKS = 1_000
_MAX_BYTES = 4 * 1024 * 1024
_MAX_PIECE_BYTES = 64 * 1024
_BACK_OFF_SECONDS = (0.25, 30.0)
_MAX_FAILURES = 12
_MAX_NAME_LENGTH = 256


class StreamWriter:
    """
    Writes chunks into one stream of a run; made by `RunWriter.writer`.

    `write` waits while 1,000 chunks or 4 MiB are not acknowledged. The gateway being away is waited
    out for some minutes; after an error nothing more can be written, and every call raises it.

    Raises (all methods):
        ApiError: The gateway refused, for example `StreamClosed` or `PayloadTooLarge`.
        ConnectionLost: It could not be reached, again and again.
        StreamLost: It lost what it had acknowledged.
        RunOver: The writer was closed.
    """

    def __init__(
        self,
        http: GatewayHttp,
        run_id: str,
        key: str,
        target: Target = "self",
        name: str | None = None,
    ) -> None:
        self._http = http
        self.path = stream_path(run_id, key, target)
        self._name = secrets.token_hex(8) if name is None else _checked_name(name)
        self._buffer = ChunkBuffer(_MAX_CHUNKS, _MAX_BYTES)
        self._moved = asyncio.Event()  # something changed: look again
        self._flush_to = 0
        self._registered = False
        self._closed = False
        self._error: RuncastError | None = None
        self._sender: asyncio.Task[None] | None = None

    async def write(self, value: Any) -> None:
        """Write one chunk: a text, or any other value as JSON."""
        line = to_json(value, "The chunk")
        self._check_open()
        if self._sender is None:
            self._sender = asyncio.create_task(self._run())
        while self._buffer.full:
            await self._wait()
            self._check_open()
        self._buffer.add(line)
        self._moved.set()

    async def resume(self) -> int:
        """
        Go on behind what a writer of this name has stored; before anything is written.

        Returns:
            How many chunks that is: the source goes on with the one after them.
        """
        self._check_open()
        if self._sender is not None:
            raise InvalidArgument("Resume a writer before anything is written.")
        response = await self._http.request("HEAD", self.path, headers={"x-client-id": self._name})
        self._buffer.first = self._flush_to = _stored_end(response)
        return self._buffer.first

    async def flush(self) -> None:
        """Wait until everything that was written is stored for good."""
        self._flush_to = self._buffer.end
        self._moved.set()
        while self._buffer.first < self._flush_to:
            self._check_error()
            await self._wait()
        self._check_error()

    async def close(self) -> None:
        """Flush, and write no more; the stream itself stays open for other writers."""
        self._closed = True
        try:
            await self.flush()
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Write no more, and leave what is not stored."""
        self._closed = True
        if self._sender is not None:
            self._sender.cancel()
            with suppress(asyncio.CancelledError):
                await self._sender

    async def __aenter__(self) -> "StreamWriter":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _check_open(self) -> None:
        self._check_error()
        if self._closed:
            raise RunOver("This stream writer was closed; ask the run for another.")

    def _check_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    # -- the sending task ---------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            backoff = Backoff(*_BACK_OFF_SECONDS)
            while True:
                while self._buffer.first == self._buffer.end:
                    await self._wait()
                await self._send_until_stored(backoff)
        except RuncastError as error:
            self._error = error
        except Exception as error:
            self._error = RuncastError(f"The stream writer failed: {type(error).__name__}: {error}")
            self._error.__cause__ = error
        finally:
            self._moved.set()

    async def _send_until_stored(self, backoff: Backoff) -> None:
        """Make one request of what is there and what comes; after a failure, catch up."""
        token = await self._http.bearer.current()
        try:
            await self._register(token)
            await self._send(token)
        except TokenExpired:
            if not self._http.bearer.renewable or backoff.failures >= _MAX_FAILURES:
                raise
            backoff.next_delay()
            await self._http.bearer.renew(token)
        except Retriable as error:
            delay = max(backoff.next_delay(), error.wait_seconds)
            if backoff.failures >= _MAX_FAILURES:
                raise error.cause from error.cause.__cause__
            logger.info("%s is written again: %s", self.path, error.cause.message)
            await asyncio.sleep(delay)
            if await self._probe():
                backoff.reset()
        else:
            backoff.reset()

    async def _register(self, token: str) -> None:
        """Make the stream known, so that followers of the run see its key."""
        if not self._registered:
            async with self._http.open("PUT", self.path, token):
                self._registered = True

    async def _send(self, token: str) -> None:
        sent = start = self._buffer.first

        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            loop = asyncio.get_running_loop()
            deadline = loop.time() + _REQUEST_SECONDS
            while True:
                while sent < self._buffer.end:
                    lines, sent = self._buffer.lines(sent, _MAX_PIECE_BYTES)
                    yield lines
                if self._flush_to > start or self._buffer.half_full:
                    return
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._wait()
                except TimeoutError:
                    return

        headers = {
            "content-type": "application/x-ndjson",
            "x-client-id": self._name,
            "x-resume-from-chunk": str(start),
        }
        async with self._http.open(
            "POST", self.path, token, headers=headers, content=body()
        ) as response:
            await response.aread()
        self._acknowledge(sent)

    async def _probe(self) -> bool:
        """Ask how far the gateway is; True if it has more than was known."""
        token = await self._http.bearer.current()
        headers = {"x-client-id": self._name}
        try:
            async with self._http.open("HEAD", self.path, token, headers=headers) as response:
                stored_end = _stored_end(response)
        except (Retriable, TokenExpired):
            return False  # the next request says more
        if stored_end < self._buffer.first:
            raise StreamLost(
                "The gateway lost chunks that it had acknowledged: was its database restored?"
            )
        return self._acknowledge(stored_end)

    def _acknowledge(self, end: int) -> bool:
        moved = self._buffer.acknowledge(end)
        self._moved.set()
        return moved


def _stored_end(response: httpx.Response) -> int:
    """The index behind the last chunk that the gateway has of a writer."""
    try:
        return max(int(response.headers.get("x-last-chunk-index", "")) + 1, 0)
    except ValueError:
        raise UnexpectedAnswer("The gateway did not tell how far a stream is.") from None


def _checked_name(name: str) -> str:
    if not 0 < len(name) <= _MAX_NAME_LENGTH or not name.isascii() or not name.isprintable():
        raise InvalidArgument(
            f"The name of a writer has 1 to {_MAX_NAME_LENGTH} printable ASCII characters."
        )
    return name


def stream_path(run_id: str, key: str, target: Target = "self") -> str:
    """Where a stream is written."""
    return f"/realtime/v1/streams/{quote(run_id, safe='')}/{target}/{quote(key, safe='')}"
