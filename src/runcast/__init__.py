"""Runcast: background runs, live in a browser."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runcast.client import (
        AsyncClient as AsyncClient,
        Client as Client,
        Part as Part,
        Run as Run,
        RuncastError as RuncastError,
        RunHandle as RunHandle,
        RunWriter as RunWriter,
        create_public_token as create_public_token,
    )

# Imported when first asked for: the parts of a gateway import this package too, and are not to
# load the client with it.
_EXPORTED = (
    "AsyncClient",
    "Client",
    "Part",
    "Run",
    "RunHandle",
    "RunWriter",
    "RuncastError",
    "create_public_token",
)


if not TYPE_CHECKING:  # type checkers would take it for a promise of every name

    def __getattr__(name: str) -> object:
        if name not in _EXPORTED:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import runcast.client

        value = globals()[name] = getattr(runcast.client, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTED})
