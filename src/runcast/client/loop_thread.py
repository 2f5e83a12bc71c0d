"""A thread with an event loop of its own, and asynchronous methods made to be called plainly."""

import asyncio
import functools
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterator
from typing import Any, ParamSpec, TypeVar

from runcast.client.errors import ClientClosed

P = ParamSpec("P")
T = TypeVar("T")


class LoopThread:
    """
    Starts when it is first needed, so that a server may fork before.

    Ends with `stop`, or else when nobody holds it any more or the program ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None
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
            running = self._running
            if isinstance(iterator, AsyncGenerator) and running and not running.stopped:
                self.run(_close(iterator))

    def stop(self) -> None:
        """End the thread; what still runs there is cancelled."""
        with self._lock:
            self._stopped = True
            running, self._running = self._running, None
        if running is not None:
            running.stop()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._running is None or self._running.process != os.getpid():
                if self._stopped:
                    raise ClientClosed("This client was closed; make another.")
                self._running = _Running()
                # Also when the program ends: afterwards no thread would answer any more.
                weakref.finalize(self, self._running.stop)
            if self._running.stopped:
                raise ClientClosed("The program ends, and its clients with it.")
            return self._running.loop


class _Running:
    """A thread that runs, and its loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.process = os.getpid()
        self.stopped = False
        self._thread = threading.Thread(
            target=_run_loop, args=(self.loop,), name="runcast", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        if self.stopped or self.process != os.getpid():
            return
        self.stopped = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        loop.close()


async def _step(iterator: Any) -> tuple[Any] | None:
    try:
        return (await anext(iterator),)
    except StopAsyncIteration:
        return None


async def _close(iterator: AsyncGenerator[Any, None]) -> None:
    await iterator.aclose()
