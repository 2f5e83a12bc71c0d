"""Reading the body of a request: bounded in size and time, JSON only."""

import asyncio
from typing import Any

import orjson
from starlette.requests import Request

from runcast.core.packet import repaired_json
from runcast.errors import InvalidBody, PayloadTooLarge, RequestTimeout, UnsupportedMediaType

# orjson reads 1024 levels but writes 254, and all that is stored must be written again.
_MAX_DEPTH = 200


async def read_json(
    request: Request, *, max_bytes: int, timeout_seconds: float, optional: bool
) -> Any:
    """
    Read the body as JSON, whatever its content type: ``curl -d`` and ``fetch`` say something else.

    Args:
        optional: Whether an empty body is an empty object.

    Raises:
        PayloadTooLarge: More than ``max_bytes``.
        RequestTimeout: It did not arrive in time.
        UnsupportedMediaType: It is compressed.
        InvalidBody: Not JSON by its text, or nested too deeply.
    """
    body = await read_bytes(request, max_bytes=max_bytes, timeout_seconds=timeout_seconds)
    if not body and optional:
        return {}
    _check_headers(request)
    if not body:
        raise InvalidBody("Send a JSON object as the body.")
    value = _parse(body)
    if body.count(b"[") + body.count(b"{") > _MAX_DEPTH:
        try:
            orjson.dumps({"body": [value]})
        except TypeError:
            raise InvalidBody("The body is nested too deeply; 200 levels are fine.") from None
    return value


async def read_bytes(request: Request, *, max_bytes: int, timeout_seconds: float) -> bytes:
    """
    Read the body as it is.

    Raises:
        PayloadTooLarge: More than ``max_bytes``.
        RequestTimeout: It did not arrive in time.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout("The body did not arrive in time; send it again.") from None
    return b"".join(chunks)


def _parse(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        repaired = repaired_json(_text(body))
        if repaired is None:
            raise InvalidBody(f"The body is not JSON: {error}.") from None
        return orjson.loads(repaired)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidBody("The body is not UTF-8.") from None


def _too_large(max_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than the {max_bytes} bytes that are read here.")


def _check_headers(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType("Send the body as it is, without Content-Encoding.")
