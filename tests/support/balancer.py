"""A TCP balancer: each connection goes to the next gateway in turn that accepts one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress


class Balancer:
    """Passes bytes between its clients and the gateways on these ports of this machine."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._ports = list(ports)
        self._connecting: set[asyncio.Task[None]] = set()
        self._sides: set[_Side] = set()
        self.port = 0
        self.refused = 0  # nobody accepted

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def accept(self) -> asyncio.Protocol:
        """Begin with a client; it is read once there is somebody to hear it."""
        client = _Side(self._sides)

        def connected() -> None:
            # Only once it is read: until Python 3.11.4 a pause before that came to nothing.
            asyncio.get_running_loop().call_soon(client.transport.pause_reading)
            task = asyncio.get_running_loop().create_task(self._join(client))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

        client.on_made = connected
        return client

    async def _join(self, client: "_Side") -> None:
        self._ports.append(self._ports.pop(0))
        for port in list(self._ports):
            gateway = _Side(self._sides)
            with suppress(OSError):
                await asyncio.get_running_loop().create_connection(
                    lambda gateway=gateway: gateway,  # type: ignore[misc]
                    "127.0.0.1",
                    port,
                )
                gateway.peer, client.peer = client, gateway
                if client.transport.is_closing():
                    gateway.transport.abort()
                else:
                    client.transport.resume_reading()
                return
        self.refused += 1
        client.transport.abort()

    async def close(self) -> None:
        """Drop all that is open."""
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for side in list(self._sides):
            side.transport.abort()


class _Side(asyncio.Protocol):
    """One of the two connections that make one."""

    transport: asyncio.Transport

    def __init__(self, sides: "set[_Side]") -> None:
        self._sides = sides
        self.peer: _Side | None = None
        self.on_made: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._sides.add(self)
        self.on_made()

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sides.discard(self)
        if self.peer is None:
            return
        if exc is None:
            self.peer.transport.close()  # with what is on its way
        else:
            self.peer.transport.abort()


@asynccontextmanager
async def balancing(ports: Iterable[int]) -> AsyncIterator[Balancer]:
    """Balance between these ports for as long as the context lasts."""
    balancer = Balancer(ports)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(balancer.accept, "127.0.0.1", 0, backlog=2048)
    balancer.port = server.sockets[0].getsockname()[1]
    try:
        yield balancer
    finally:
        server.close()
        await balancer.close()
        await server.wait_closed()
