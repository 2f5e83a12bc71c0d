"""
`runcast worker`: one of the processes that `runcast serve --workers` starts, and nobody else.

Its end of a socket pair tells the parent that it is ready. When the other end is closed it drains
and ends: the parent wants that, or is no more.
"""

import asyncio
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runcast.cli.logs import configure_logs
from runcast.cli.loop import ended_by_signals, run, settle
from runcast.settings import Settings, load_settings

if TYPE_CHECKING:
    from runcast.app import Listening
    from runcast.web.worker_figures import WorkerPlace


def worker(
    number: Annotated[int, typer.Option()],
    count: Annotated[int, typer.Option()],
    folder: Annotated[Path, typer.Option()],
    listener: Annotated[int, typer.Option(help="File descriptor.")],
    control: Annotated[int, typer.Option(help="File descriptor.")],
) -> None:
    """Run one gateway of several on one port; started by `runcast serve --workers`."""
    from runcast.web.worker_figures import WorkerPlace

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the parent, and a terminal tells all
    settings = load_settings()
    configure_logs(settings, worker=number)
    with socket.socket(fileno=listener) as opened, socket.socket(fileno=control) as parent:
        run(_work(settings, WorkerPlace(number, count, folder), opened, parent))


async def _work(
    settings: Settings, place: "WorkerPlace", listener: socket.socket, parent: socket.socket
) -> None:
    from runcast.app import Gateway

    loop = asyncio.get_running_loop()
    parent.setblocking(False)
    with ended_by_signals() as signals_handed_over:
        gateway = Gateway(settings, place=place)

        def end() -> None:
            loop.remove_reader(parent)
            if signals_handed_over.is_set():
                gateway.stop()
            else:
                signal.raise_signal(signal.SIGTERM)

        async def ready(_: "Listening") -> None:
            signals_handed_over.set()
            settle()
            parent.send(b".")

        loop.add_reader(parent, end)
        async with gateway:
            await gateway.serve(ready, listener=listener)
