"""The response to a poll, for ASGI and past it."""

from collections.abc import Iterator, Mapping

from starlette.types import Receive, Scope, Send

_SLICE_BYTES = 64 * 1024


class PollResponse:
    """A JSON response in slices, so that a reader who takes nothing can be told from a slow one."""

    def __init__(self, pieces: list[bytes], headers: Mapping[str, str], status: int = 200) -> None:
        self.status = status
        self.size = sum(map(len, pieces))
        self._pieces = pieces
        self._headers = {
            "content-type": "application/json",
            **headers,
            "content-length": str(self.size),
        }

    @property
    def header_lines(self) -> bytes:
        """The headers as they are sent."""
        return "".join([f"{name}: {value}\r\n" for name, value in self._headers.items()]).encode()

    @property
    def ends_connection(self) -> bool:
        """Whether no request may follow on the same connection."""
        return self._headers.get("connection") == "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        for data in self.slices():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def slices(self) -> Iterator[bytes]:
        """The body."""
        if self.size <= _SLICE_BYTES:
            yield b"".join(self._pieces)
            return
        waiting = bytearray()
        for piece in self._pieces:
            waiting += piece
            if len(waiting) >= _SLICE_BYTES:
                yield bytes(waiting)
                waiting.clear()
        if waiting:
            yield bytes(waiting)
