"""The proxy of the deployment: nginx with deploy/nginx.conf, but for addresses and files."""

import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from chaos.failure import ChaosError
from chaos.local.process import Process, takes_connections

_DESCRIBED = Path(__file__).parents[2] / "deploy" / "nginx.conf"
_PLACES = ("/usr/sbin/nginx", "/usr/local/sbin/nginx")


def configuration(described: str, port: int, gateways: Sequence[int], folder: Path) -> str:
    """
    The described configuration with this machine's ports, addresses and files.

    Raises:
        ChaosError: What has to be replaced is not there.
    """
    servers = "\n".join(f"        server 127.0.0.1:{each};" for each in gateways)
    replacements = (
        (r"\n *resolver .*;", ""),  # a server by address needs no name server
        (r"(?:\n *server gateway-\d+:8080 resolve;)+", "\n" + servers),
        (r"/tmp/nginx\.pid", f"{folder}/nginx.pid"),
        (r"error_log /dev/stderr", f"error_log {folder}/nginx-error.log"),
        (r"access_log [^;]*", "access_log off"),
        (r"listen 8080", f"listen 127.0.0.1:{port}"),
        (r"\n {4}server \{", "".join(
            f"\n    {kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ) + "\n    server {"),
    )  # fmt: skip
    text = described
    for pattern, replacement in replacements:
        text, count = re.subn(pattern, lambda _, by=replacement: by, text)  # type: ignore[misc]
        if count != 1:
            raise ChaosError(f"deploy/nginx.conf has {pattern!r} {count} times, not once.")
    return text


@asynccontextmanager
async def running(port: int, gateways: Sequence[int], folder: Path) -> AsyncIterator[Process]:
    """
    A proxy for as long as the block.

    Raises:
        ChaosError: There is no nginx on this machine.
    """
    program = shutil.which("nginx") or next(filter(shutil.which, _PLACES), None)
    if program is None:
        raise ChaosError("There is no nginx: install the package nginx.")
    file = folder / "nginx.conf"
    file.write_text(configuration(_DESCRIBED.read_text(), port, gateways, folder))
    command: list[str | Path] = [program, "-c", file, "-p", folder, "-g", "daemon off;"]
    process = Process("nginx", command, folder, lambda: takes_connections(port))
    await process.start()
    try:
        yield process
    finally:
        await process.stop()
