"""A thread with an event loop of its own, and asynchronous methods made to be called plainly."""

import asyncio
import functools
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterator
from typing import Any, ParamSpec, TypeVar

from runcast.client.errors import ClientClosed

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """Starts when it is first needed, so that a server may fork before; ends with `stop`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0
        self._stopped = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """
        Run a coroutine over there and wait for it; whoever is interrupted cancels it.

        Raises:
            ClientClosed: The thread was stopped.
        """
        try:
            loop = self._running_loop()
        except ClientClosed:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def calling(self, method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        """Make a plain function of an asynchronous one, with the same parameters."""

        @functools.wraps(method)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return self.run(method(*args, **kwargs))

        return call

    def iterating(self, source: AsyncIterable[T]) -> Iterator[T]:
        """Iterate plainly over what is asynchronous; leaving early ends it there."""
        iterator = aiter(source)
        try:
            while step := self.run(_step(iterator)):
                yield step[0]
        finally:
            if isinstance(iterator, AsyncGenerator) and not self._stopped:
                self.run(_close(iterator))

    def stop(self) -> None:
        """End the thread; what still runs there is cancelled."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._stopped = True
        if loop is not None and thread is not None and self._process == os.getpid():
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._stopped:
                raise ClientClosed("This client was closed; make another.")
            if self._loop is None or self._process != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._process = os.getpid()
                self._thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name="runcast", daemon=True
                )
                self._thread.start()
            return self._loop


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _step(iterator: Any) -> tuple[Any] | None:
    try:
        return (await anext(iterator),)
    except StopAsyncIteration:
        return None


async def _close(iterator: AsyncGenerator[Any, None]) -> None:
    await iterator.aclose()
