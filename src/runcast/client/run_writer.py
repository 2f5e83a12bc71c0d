"""
Carrying out a run: what ``client.runs.start`` and ``client.runs.take`` give.

    NEW ──enter──▶ TAKEN ──finish, fail, or leaving──▶ OVER
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

from runcast.client.errors import RuncastError, RunOver
from runcast.client.gateway_http import GatewayHttp
from runcast.client.options import change_body
from runcast.client.run import Run, RunHandle, run_from
from runcast.client.run_metadata import RunMetadata
from runcast.client.stream_writer import StreamWriter, Target, stream_path

logger = logging.getLogger("runcast.client")

_CANCELLED_SECONDS = 5.0

T = TypeVar("T")


class RunWriter:
    """
    One run that is carried out in this process, as an asynchronous context manager.

    Entering sets the run EXECUTING. Leaving completes it, or fails it with the exception that is
    on its way through; `finish` with an output and `fail` do so before. Everything written is
    stored before the run is told to be finished: metadata and streams.
    """

    def __init__(
        self,
        http: GatewayHttp,
        run: str | RunHandle | Callable[[], Awaitable[RunHandle]],
    ) -> None:
        self._http = http
        self._given = run
        self._run: Run | None = None
        self._token: str | None = None
        self._metadata: RunMetadata | None = None
        self._writers: list[StreamWriter] = []
        self._over = False

    @property
    def run(self) -> Run:
        """The run as it was when it was taken: its payload, tags, metadata."""
        if self._run is None:
            raise RunOver("The run is not taken yet: enter it with `async with`.")
        return self._run

    @property
    def id(self) -> str:
        """The id of the run."""
        return self.run.id

    @property
    def payload(self) -> Any:
        """What the run was triggered with."""
        return self.run.payload

    @property
    def public_access_token(self) -> str:
        """A token that reads this run for an hour; only where the run was created here."""
        if self._token is None:
            raise RunOver(
                "This run was not created here; `create_public_token` makes a token for it."
            )
        return self._token

    @property
    def metadata(self) -> RunMetadata:
        """Changes the metadata of the run, without waiting; see `RunMetadata`."""
        if self._metadata is None:
            raise RunOver("The run is not taken yet: enter it with `async with`.")
        return self._metadata

    async def __aenter__(self) -> "RunWriter":
        """
        Take the run, after creating it where that was asked for.

        Raises:
            IllegalTransition: It is finished.
            ApiError: The gateway refused otherwise.
            ConnectionLost: It could not be reached.
        """
        if self._run is not None:
            raise RunOver("A run writer is entered once; take the run again for another.")
        given = self._given if isinstance(self._given, str | RunHandle) else await self._given()
        if isinstance(given, RunHandle):
            self._token = given.public_access_token
        run_id = given.id if isinstance(given, RunHandle) else given
        self._run = run_from(await self._patch(run_id, {"status": "EXECUTING"}))
        path = f"/api/v1/runs/{quote(run_id, safe='')}/metadata"
        self._metadata = RunMetadata(self._http, path, self._run.metadata)
        self._metadata.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the run, or fail it; an exception on its way always goes on."""
        if self._over:
            return
        if error is not None:
            await self._fail_quietly(error)
            return
        try:
            await self.finish()
        except BaseException as problem:
            await self._fail_quietly(problem)
            raise

    async def finish(self, output: Any = None) -> None:
        """
        Complete the run, after all metadata and streams are stored.

        Raises:
            RunOver: It was finished or failed here before.
            IllegalTransition: It is finished, for example cancelled.
            ApiError: The gateway refused otherwise, also any of the metadata or chunks.
            ConnectionLost: It could not be reached.
        """
        self._check_taken()
        await self.metadata.stop()
        for writer in self._writers:
            await writer.close()
        await self.metadata.flush()
        await self._patch(self.id, {"status": "COMPLETED", "output": output})
        self._over = True

    async def fail(self, error: BaseException | str) -> None:
        """
        Fail the run with an exception or a message, after what can be stored is stored.

        Raises:
            RunOver: It was finished or failed here before.
            ApiError: The gateway refused; `IllegalTransition`: it is finished.
            ConnectionLost: It could not be reached.
        """
        self._check_taken()
        await self.metadata.stop()
        for settle in (*(writer.close for writer in self._writers), self.metadata.flush):
            try:
                await settle()
            except RuncastError as problem:
                logger.warning("of run %s something was not stored: %s", self.id, problem)
        await self._patch(self.id, {"status": "FAILED", "error": error})
        self._over = True

    def writer(self, key: str, *, name: str | None = None, target: Target = "self") -> StreamWriter:
        """
        Open a stream of this run, or of its parent or root, to write chunks into it.

        It is closed when the run is finished; several writers to one stream interleave.

        Args:
            key: Of the stream, such as ``llm``.
            name: For a writer that may be restarted: chunks that a writer of this name stored
                before are not stored again, if it writes the same from the start; see also
                `StreamWriter.resume`.
            target: Whose stream it is.
        """
        self._check_taken()
        writer = StreamWriter(self._http, self.id, key, target, name)
        self._writers.append(writer)
        return writer

    async def stream(
        self,
        key: str,
        source: AsyncIterable[T] | Iterable[T],
        *,
        name: str | None = None,
        target: Target = "self",
    ) -> AsyncGenerator[T, None]:
        """
        Give the chunks of a source and write each into a stream on its way.

        Texts are written as JSON strings, all else as JSON, pydantic models included. When the
        source ends, all chunks are stored; when the loop is left early, those that it got are.
        ``name`` and ``target`` as in `writer`.

        Raises:
            InvalidArgument: A chunk cannot be written as JSON.
            ApiError, ConnectionLost, StreamLost: As `StreamWriter` says.
        """
        writer = self.writer(key, name=name, target=target)
        try:
            async for chunk in _iterated(source):
                await writer.write(chunk)
                yield chunk
        finally:
            await self._close(writer)

    async def pipe(
        self,
        key: str,
        source: AsyncIterable[Any] | Iterable[Any],
        *,
        name: str | None = None,
        target: Target = "self",
    ) -> int:
        """Write all chunks of a source into a stream, and tell how many; see `stream`."""
        count = 0
        async for _ in self.stream(key, source, name=name, target=target):
            count += 1
        return count

    async def append(self, key: str, text: str, *, target: Target = "self") -> None:
        """
        Append one text to a stream, and wait until it is stored.

        Raises:
            ApiError: The gateway refused; `StreamClosed`: nothing more can be appended.
            ConnectionLost: It could not be reached.
        """
        self._check_taken()
        await self._http.request(
            "POST",
            f"{stream_path(self.id, key, target)}/append",
            content=text.encode(errors="surrogatepass"),
            headers={"content-type": "text/plain", "x-part-id": secrets.token_hex(8)},
        )

    async def close_stream(self, key: str, *, target: Target = "self") -> None:
        """Say that a stream is complete: its readers end. Raises `ApiError`, `ConnectionLost`."""
        self._check_taken()
        path = stream_path(self.id, key, target)
        for writer in list(self._writers):
            if writer.path == path:
                await self._close(writer)
        await self._http.request("POST", f"{path}/close")

    async def add_tags(self, *tags: str) -> None:
        """Add tags to the run. Raises `ApiError`, `ConnectionLost`."""
        path = f"/api/v1/runs/{quote(self.id, safe='')}/tags"
        await self._http.send("POST", path, {"tags": list(tags)})

    async def _fail_quietly(self, error: BaseException) -> None:
        """Fail the run with an exception that is on its way and must not be replaced."""
        # Whoever was cancelled shall be gone soon.
        limit = None if isinstance(error, Exception) else _CANCELLED_SECONDS
        try:
            async with asyncio.timeout(limit):
                await self.fail(error)
        except (RuncastError, TimeoutError) as problem:
            logger.warning("run %s could not be failed: %s", self.id, problem)
        finally:
            self._over = True
            for writer in self._writers:
                await writer.abandon()

    def _check_taken(self) -> None:
        if self._over or self._run is None:
            raise RunOver("The run is finished here, or was not taken yet.")

    async def _close(self, writer: StreamWriter) -> None:
        try:
            await writer.close()
        finally:
            if writer in self._writers:
                self._writers.remove(writer)

    async def _patch(self, run_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        path = f"/api/v1/runs/{quote(run_id, safe='')}"
        return await self._http.send("PATCH", path, change_body(changes))


async def _iterated(source: AsyncIterable[T] | Iterable[T]) -> AsyncGenerator[T, None]:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item
