"""Runs the one coroutine of a command."""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import typer

T = TypeVar("T")

INTERRUPTED = 130


def run(command: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end; Ctrl-C ends it with the status that shells expect, and silently."""
    try:
        with asyncio.Runner(loop_factory=_new_loop()) as runner:
            return runner.run(command)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def settle() -> None:
    """
    Fit the collection of garbage to a server, once it has started.

    All there is by now stays: looking at it again would stop every delivery for some 50 ms. And
    connections that come, as most of what they need, live longer than 700 allocations: looked at
    so often, they cost a tenth of a request.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[asyncio.Event]:
    """
    Let SIGINT and SIGTERM end the block in good order, by cancelling it, until the event is set.

    Set it when somebody else handles them. A server that does, and raises them once more when it
    is done, does no harm then.
    """
    handed_over = asyncio.Event()
    ended = False
    task = asyncio.current_task()
    assert task is not None

    def end() -> None:
        nonlocal ended
        if not handed_over.is_set():
            ended = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        yield handed_over
    except asyncio.CancelledError:
        if not ended:
            raise


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":  # uvloop does not run there
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
