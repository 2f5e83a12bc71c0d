"""What can be done to a deployment, by name; what each one holds back or loses is said with it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from chaos.link import Link
from chaos.schedule import Dice


@dataclass(frozen=True)
class Fault:
    """
    One way to break something, and to mend it again.

    Attributes:
        target: What it is done to; one thing at a time is done to the same.
        act: Does it, and comes back when it is mended.
        holds_back: What was sent before may arrive late while it lasts.
        loses_streams: Streams may be gone afterwards; everybody has to be told.
    """

    name: str
    target: str
    act: Callable[[Dice], Awaitable[None]]
    holds_back: bool = False
    loses_streams: bool = False


def network_faults(name: str, link: Link) -> Iterable[Fault]:
    """What a network can do: the one between ``name`` and whom they talk to."""

    async def cut(dice: Dice) -> None:
        for _ in range(dice.randrange(1, 4)):
            link.cut()
            await asyncio.sleep(dice.seconds(0, 0.5))

    async def lose(dice: Dice) -> None:
        await link.lose(dice.seconds(0.2, 4))

    async def hold(dice: Dice) -> None:
        await link.hold(dice.seconds(0.5, 6))

    async def slow_down(dice: Dice) -> None:
        await link.slow_down(dice.uniform(0.05, 0.5), dice.seconds(1, 5))

    async def forget(dice: Dice) -> None:
        link.forget()

    return (
        Fault(f"{name}: network cut", name, cut),
        Fault(f"{name}: network lost", name, lose),
        Fault(f"{name}: network stalled", name, hold, holds_back=True),
        Fault(f"{name}: network slow", name, slow_down, holds_back=True),
        Fault(f"{name}: half-open connections", name, forget),
    )
