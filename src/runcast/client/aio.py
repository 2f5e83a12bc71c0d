"""``AsyncClient``: the client for asyncio programs."""

import os
from types import TracebackType

import httpx

from runcast.client.batches import Batches
from runcast.client.bearer import Bearer, TokenFactory, checked_token
from runcast.client.errors import NotConfigured
from runcast.client.feeds import Feeds, TransportName
from runcast.client.gateway_http import GatewayHttp
from runcast.client.public_tokens import PublicTokens
from runcast.client.runs import Runs
from runcast.client.streams import Streams
from runcast.client.tasks import Tasks

DEFAULT_URL = "http://127.0.0.1:8080"


class AsyncClient:
    """
    Everything that a gateway offers, for asyncio programs; `Client` is the same for plain ones.

    Use it as a context manager, or `close` it in the end. One client serves any number of tasks.

    Args:
        base_url: Of the gateway; otherwise RUNCAST_URL, or the address of ``runcast dev``.
        secret_key: For backends; otherwise RUNCAST_SECRET_KEY.
        token: A public access token; otherwise RUNCAST_TOKEN. Or a function that gives one, plain
            or asynchronous: it is asked again when a token has expired.
        environment_id: Where it is known, tokens are signed without asking the gateway for it.
        http: An httpx client to use, for proxies, certificates and the like; it stays yours to
            close. Timeouts are set for each request. Feeds go over it too, unless ``transport`` is
            ``websocket``.
        transport: How feeds come; otherwise RUNCAST_CLIENT_TRANSPORT, or ``auto``: over one
            WebSocket that all share, and where none can be had each over SSE, for five minutes
            before a WebSocket is tried again. ``websocket`` and ``sse`` allow only that one.

    Raises:
        NotConfigured: There is neither key nor token, or both, the URL is none, or there is no
            such transport.
    """

    def __init__(
        self,
        base_url: str | None = None,
        secret_key: str | None = None,
        token: str | TokenFactory | None = None,
        *,
        environment_id: str | None = None,
        http: httpx.AsyncClient | None = None,
        transport: TransportName | None = None,
    ) -> None:
        url = base_url or os.environ.get("RUNCAST_URL") or DEFAULT_URL
        self._http = GatewayHttp(url, _bearer(secret_key, token), http)
        self._public_tokens = PublicTokens(self._http, environment_id)
        self.tasks = Tasks(self._http)
        self._feeds = Feeds(self._http, _transport(transport, http))
        self.runs = Runs(self._http, self.tasks, self._feeds)
        self.batches = Batches(self._http)
        self.streams = Streams(self._feeds)
        self.create_public_token = self._public_tokens.create
        self.revoke_tokens = self._public_tokens.revoke
        self.revocations = self._public_tokens.revocations
        self.lift_revocation = self._public_tokens.lift_revocation

    async def close(self) -> None:
        """Close all connections; subscriptions end."""
        await self._feeds.close()
        await self._http.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _transport(chosen: str | None, http: httpx.AsyncClient | None) -> TransportName:
    name = chosen or os.environ.get("RUNCAST_CLIENT_TRANSPORT") or "auto"
    match name:
        case "auto":  # a WebSocket would go past what that client is for
            return "auto" if http is None else "sse"
        case "websocket" | "sse":
            return name
    raise NotConfigured('transport (or RUNCAST_CLIENT_TRANSPORT) is "auto", "websocket" or "sse".')


def _bearer(secret_key: str | None, token: str | TokenFactory | None) -> Bearer:
    if secret_key and token:
        raise NotConfigured("Give a secret_key or a token, not both.")
    if not secret_key and not token:
        secret_key = os.environ.get("RUNCAST_SECRET_KEY")
        token = None if secret_key else os.environ.get("RUNCAST_TOKEN")
    if secret_key:
        return Bearer(secret_key=checked_token(secret_key, "The secret key"))
    if callable(token):
        return Bearer(factory=token)
    if token:
        return Bearer(token=checked_token(token, "The token"))
    raise NotConfigured(
        "Give secret_key or token, or set RUNCAST_SECRET_KEY or RUNCAST_TOKEN; "
        "`runcast dev` prints a key."
    )
