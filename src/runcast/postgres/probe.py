"""One question to a Postgres server on a Unix socket: do you take connections now?"""

import socket
import struct

_PROTOCOL_3_0 = 196608
_AUTHENTICATION = b"R"
_ERROR = b"E"
_CANNOT_CONNECT_NOW = b"C57P03\0"


def answers(path: str, *, timeout_seconds: float = 1.0) -> bool:
    """
    Tell whether a server answers a startup message otherwise than "not now".

    A process id or a connection alone would not do: both are there while the server still
    recovers, when it answers with an error.

    Source: PostgreSQL documentation, "Frontend/Backend Protocol" (StartupMessage), error 57P03.
    """
    body = struct.pack("!i", _PROTOCOL_3_0) + b"user\0postgres\0database\0postgres\0\0"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_seconds)
        try:
            connection.connect(path)
            connection.sendall(struct.pack("!i", len(body) + 4) + body)
            answer = connection.recv(1024)
        except OSError:
            return False
    if answer.startswith(_ERROR):  # of a server that is full, for example
        return _CANNOT_CONNECT_NOW not in answer
    return answer.startswith(_AUTHENTICATION)
