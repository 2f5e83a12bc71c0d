"""What is tested: where it is, who may do what there, and how it can be broken."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from chaos.failure import ChaosError
from chaos.fault import Fault, network_faults
from chaos.link import linked
from chaos.token import Signer


@dataclass(frozen=True)
class Deployment:
    """
    A running deployment.

    Attributes:
        url: As subscribers and writers reach it: through a network that can be broken.
        database_url: For SQL writers and the ledger; None if there is no way into the database.
        schema: Where our tables are there.
        heartbeat: Seconds after which a gateway sends something on a quiet connection.
        faults: All that can be done to it.
        errors: Gives what its gateways logged as errors since it was called last: whatever breaks
            around them, none is expected.
    """

    url: str
    signer: Signer
    database_url: str | None
    schema: str
    heartbeat: float
    faults: tuple[Fault, ...]
    errors: Callable[[], list[str]] = list

    @property
    def silence(self) -> float:
        """Seconds without a byte after which a connection is dead."""
        return 2.5 * self.heartbeat + 2


@asynccontextmanager
async def remote(
    url: str, key: str, database_url: str | None, schema: str, heartbeat: float
) -> AsyncIterator[Deployment]:
    """
    A deployment somewhere, of which nothing is known but its address: only its network is broken.

    Raises:
        ChaosError: It does not answer, or does not know the key.
    """
    address = urlsplit(url)
    if address.scheme != "http" or address.hostname is None:
        raise ChaosError(
            f"{url!r} is no http:// address: the suite breaks the network by a proxy of its own, "
            "so give it an address without TLS."
        )
    signer = Signer(await _environment(url, key), key)
    async with linked(address.hostname, address.port or 80) as link:
        yield Deployment(
            f"http://127.0.0.1:{link.port}",
            signer,
            database_url,
            schema,
            heartbeat,
            tuple(network_faults("clients", link)),
        )


async def _environment(url: str, key: str) -> str:
    """Ask a gateway whose key this is."""
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
        answer = None
        with contextlib.suppress(httpx.TransportError):
            answer = await http.post("/api/v1/auth/jwt/claims")
    if answer is None:
        raise ChaosError(f"Nobody answers at {url}.")
    if not answer.is_success:
        raise ChaosError(f"{url} does not take the key: {answer.text[:200]}")
    environment_id: str = answer.json()["sub"]
    return environment_id
