"""The WebSockets of one client: the first feed opens one, the others share it."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from runcast.client.attempts import Attempts
from runcast.client.errors import ClientClosed
from runcast.client.gateway_http import GatewayHttp
from runcast.client.open_socket import OpenSocket, Subscribed
from runcast.client.retriable import SocketFull
from runcast.client.shared_socket import MAX_SUBSCRIPTIONS


class Sockets:
    """
    Carries feeds: on one socket while that has room, and on a further one beyond.
    """

    def __init__(self, http: GatewayHttp) -> None:
        self._http = http
        self._attempts = Attempts()
        self._max_subscriptions = MAX_SUBSCRIPTIONS
        self._sockets: list[OpenSocket] = []
        self._closed = False

    async def subscribe(
        self, fields: Mapping[str, Any], *, of_runs: bool, alone: bool
    ) -> Subscribed:
        """
        Begin a subscription, and wait until something was told of it.

        Args:
            fields: Of the message ``subscribe``.
            of_runs: It is a feed of runs.
            alone: On a socket of its own, which is read no faster than the feed.

        Raises:
            ApiError: The gateway refused.
            NoWebSocket: None can be had.
            Retriable: The gateway refused for now, or could not be reached.
        """
        while True:
            subscribed = Subscribed(self._socket(alone), fields, of_runs=of_runs, alone=alone)
            try:
                await subscribed.begin()
            except SocketFull:
                limit = subscribed.socket.machine.max_subscriptions
                self._max_subscriptions = min(self._max_subscriptions, limit)
            except BaseException:
                subscribed.leave()
                raise
            else:
                return subscribed

    def begin_anew(self) -> None:
        """Nothing else gets through either, so what failed here was not a WebSocket's fault."""
        self._attempts.resets = 0

    async def close(self) -> None:
        """Close all sockets; their feeds end with `ClientClosed`."""
        self._closed = True
        await asyncio.gather(*(each.stop() for each in list(self._sockets)))

    def _socket(self, alone: bool) -> OpenSocket:
        if self._closed:
            raise ClientClosed("This client was closed; make another.")
        for each in self._sockets:
            if not alone and each.takes_more(self._max_subscriptions):
                return each
        socket = OpenSocket(self._http, self._attempts, self._over, alone=alone)
        self._sockets.append(socket)
        return socket

    def _over(self, socket: OpenSocket) -> None:
        with suppress(ValueError):
            self._sockets.remove(socket)
