"""The sockets that a gateway listens on, alone or with others on one port."""

import socket
import sys

from runcast.errors import ConfigurationError

_BACKLOG = 2048
_SEND_BUFFER_BYTES = 65536  # else the kernel takes megabytes before a stalled reader is noticed
# Of the time after which a reader counts as stalled: the gateway is to be first, and to count it.
_KERNEL_PATIENCE = 1.5

# Whether the system spreads connections evenly over sockets that share a port. Processes that
# share one socket take what they are quick to take: of 1,000 event streams two gateways held
# 466 to 534 with a socket each, and up to 774 with one for both.
SPREADS = sys.platform == "linux"


def listen(
    host: str, port: int, *, stall_timeout_seconds: float, shared: bool = False
) -> socket.socket:
    """
    Open the listening socket.

    Its options are inherited by every connection: a small send buffer shows early that a reader is
    behind, and the kernel itself drops one that acknowledges nothing.

    Args:
        stall_timeout_seconds: After half as much again the kernel drops who acknowledges nothing.
        shared: More sockets of ours may `join` the port; those of others are kept out as ever.

    Raises:
        ConfigurationError: The address cannot be used.
    """
    listener: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        _set_options(listener, int(stall_timeout_seconds * 1000 * _KERNEL_PATIENCE))
        listener.bind(address)
        if (
            shared and SPREADS
        ):  # only now: two gateways that are started by mistake must not share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.listen(_BACKLOG)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. "
            "Choose another --port (0 takes a free one), or stop what uses it."
        ) from error
    return listener


def join(listener: socket.socket) -> socket.socket:
    """
    Open another socket on the port of a shared one, with the same options.

    It gets no connections before somebody listens on it. Where the system does not spread
    connections over sockets, it is the same one again.
    """
    if not SPREADS:
        return listener.dup()
    joined = socket.socket(listener.family, listener.type, listener.proto)
    _set_options(joined, listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    joined.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    joined.bind(listener.getsockname())
    return joined


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine finds it."""
    host, port = listener.getsockname()[:2]
    shown = "127.0.0.1" if host == "0.0.0.0" else "[::1]" if host == "::" else host
    if ":" in shown and not shown.startswith("["):
        shown = f"[{shown}]"
    return f"http://{shown}:{port}"


def _set_options(listener: socket.socket, stall_timeout_milliseconds: int) -> None:
    listener.setblocking(False)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, stall_timeout_milliseconds)
