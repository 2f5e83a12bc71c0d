"""A server that can be measured: where it answers, how one subscribes, and how one publishes."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.harness.generator import Mode, Publish, Request

if TYPE_CHECKING:
    from benchmarks.harness.bench import Bench


@dataclass(frozen=True)
class Subject:
    """
    A running server.

    Attributes:
        ready: What a subscriber has received when it is up to date; None: the answer's head.
        bystanders: Subscribers, one for each request, who get none of the messages.
    """

    port: int
    pids: Sequence[int]
    mode: Mode
    requests: Sequence[Request]
    publish: Publish
    ready: str | None = None
    bystanders: Sequence[Request] = ()


Start: TypeAlias = "Callable[[Bench, int], AbstractAsyncContextManager[Subject]]"
"""Starts a server that will publish messages with a body of so many bytes."""


@dataclass(frozen=True)
class Contestant:
    """A kind of server, by the name that it has in records and tables."""

    name: str
    start: Start


def get(path: str, headers: str = "") -> bytes:
    """The head of a GET request for an event stream."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{headers}\r\n"
    ).encode()


def upgrade(path: str, headers: str = "") -> bytes:
    """The head of a WebSocket handshake without extensions: nothing is compressed."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{headers}\r\n"
    ).encode()


def text_frame(text: bytes) -> bytes:
    """A client's WebSocket message, masked with zeros."""
    assert len(text) < 65536
    size = len(text)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + text
