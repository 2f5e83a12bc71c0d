"""What a client shows to the gateway: a secret key, a token, or tokens from a factory."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from runcast.client.errors import NotConfigured

TokenFactory = Callable[[], str | Awaitable[str]]


class Bearer:
    """
    Holds the key or token; a factory is asked for a token when there is none, or it expired.

    A factory that is a plain function runs in a thread, so it may block.
    """

    def __init__(
        self,
        *,
        secret_key: str | None = None,
        token: str | None = None,
        factory: TokenFactory | None = None,
    ) -> None:
        self.secret_key = secret_key
        self._shown = secret_key or token
        self._factory = factory
        self._asking: asyncio.Lock | None = None

    @property
    def renewable(self) -> bool:
        """Whether an expired token can be exchanged."""
        return self._factory is not None

    async def current(self) -> str:
        """
        What to show.

        Raises:
            NotConfigured: The factory gave no token.
        """
        return self._shown or await self.renew(None)

    async def renew(self, used: str | None) -> str:
        """
        Get a token other than the one that was used; many callers ask the factory once.

        Raises:
            NotConfigured: The factory gave no token.
        """
        assert self._factory is not None
        if self._asking is None:
            self._asking = asyncio.Lock()
        async with self._asking:
            if self._shown is None or self._shown == used:
                self._shown = checked_token(await _ask(self._factory), "The token factory's token")
            return self._shown


async def _ask(factory: TokenFactory) -> str:
    answer: str | Awaitable[str]
    if inspect.iscoroutinefunction(factory):
        answer = factory()
    else:
        answer = await asyncio.to_thread(_call, factory)
    return answer if isinstance(answer, str) else await answer


def _call(factory: TokenFactory) -> str | Awaitable[str]:
    return factory()


def checked_token(token: object, what: str) -> str:
    """
    Let through what fits into a header.

    Raises:
        NotConfigured: It does not; the message does not repeat it.
    """
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise NotConfigured(f"{what} is no key or token: it has characters that those never have.")
    if " " in token:
        raise NotConfigured(f'{what} holds a space; give it without "Bearer".')
    return token
