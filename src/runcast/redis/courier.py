"""Calls of scripts, which go to Redis together: those that wait share one round trip."""

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from runcast.errors import BackendError, GatewayError
from runcast.redis.server import ERRORS, RedisServer, translate, translated

logger = logging.getLogger(__name__)

_CALLS = 500  # what one round trip may carry
_BYTES = 8 * 1024 * 1024


class Script:
    """A program in Lua that Redis runs by itself: nothing comes between its commands."""

    def __init__(self, source: str) -> None:
        self.source = source
        # Redis names scripts so; it is no matter of security.
        self.name = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True, eq=False)
class _Call:
    script: Script
    keys: Sequence[str]
    arguments: Sequence[Any]
    bytes: int
    done: asyncio.Future[Any]


class Courier:
    """
    Carries calls to Redis on one connection, in the order in which they came.

    Calls of one key must not wait for each other's effect: their order is lost when Redis has
    forgotten its scripts. Whoever needs it waits for the answer before the next call.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._waiting: list[_Call] = []
        self._sending: asyncio.Task[None] | None = None
        self.calls = 0
        self.round_trips = 0
        self.failures = 0

    async def call(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], *, size: int = 0
    ) -> Any:
        """
        Run a script; ``size`` says how many bytes it carries.

        Raises:
            BackendError: Redis does not answer or refuses; whether it was run is not known.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(script, keys, arguments, size, done))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all(), context=Context())
        return await done

    async def close(self) -> None:
        """Fail what waits."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})

    async def _send_all(self) -> None:
        group: list[_Call] = []
        try:
            while self._waiting:
                group = self._take_group()
                try:
                    results = await self._exchange(group)
                    self._note(all(map(_answered, results)))
                    _settle(group, results)
                except GatewayError as error:
                    self._note(False)
                    _settle(group, [error] * len(group))
                except Exception:
                    logger.exception("a call of Redis failed")
                    _settle(group, [BackendError("Redis failed; try again.")] * len(group))
        finally:
            self._sending = None
            gone = BackendError("The gateway stopped; try another one.")
            waiting, self._waiting = [*group, *self._waiting], []
            _settle(waiting, [gone] * len(waiting))

    def _note(self, answered: bool) -> None:
        self._server.answers = answered
        if not answered:
            self.failures += 1
            self._server.forget_layout()

    def _take_group(self) -> list[_Call]:
        size = count = 0
        for call in self._waiting[:_CALLS]:
            size += call.bytes
            if count and size > _BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _exchange(self, group: list[_Call]) -> list[Any]:
        results = await self._round_trip(
            [
                ("EVALSHA", call.script.name, len(call.keys), *call.keys, *call.arguments)
                for call in group
            ]
        )
        unknown = [n for n, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            # Redis was restarted, or its scripts were flushed: none of these was run.
            again = await self._round_trip(
                [
                    ("EVAL", call.script.source, len(call.keys), *call.keys, *call.arguments)
                    for call in map(group.__getitem__, unknown)
                ]
            )
            for place, result in zip(unknown, again, strict=True):
                results[place] = result
        self.calls += len(group)
        return results

    async def _round_trip(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        self.round_trips += 1
        async with translated(), asyncio.timeout(2 * self._server.answer_seconds):
            pipeline: Any = self._server.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            results: list[Any] = await pipeline.execute(raise_on_error=False)
            return results


def _answered(result: Any) -> bool:
    """Tell whether Redis said something, be it that it refuses."""
    return not isinstance(result, ERRORS) or isinstance(result, ResponseError)


def _settle(group: Sequence[_Call], results: Sequence[Any]) -> None:
    for call, result in zip(group, results, strict=False):
        if call.done.done():
            continue
        if isinstance(result, ERRORS):
            call.done.set_exception(translate(result))
        elif isinstance(result, Exception):
            call.done.set_exception(result)
        else:
            call.done.set_result(result)
