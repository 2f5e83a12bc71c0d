"""Names of objects, such as ``packets/run_123/payload.json``, and where stores keep them."""

import hashlib

from runcast.errors import InvalidParameter

_MAX_BYTES = 512


def check_object_name(name: str) -> str:
    """
    Let through what can name an object: parts with slashes between them.

    Raises:
        InvalidParameter: Too long, with an empty part, ``.`` or ``..``, or no plain text.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    plain = all(ord(character) >= 32 and character not in "\\\x7f" for character in name)
    if not 0 < size <= _MAX_BYTES or not plain or {"", ".", ".."} & set(name.split("/")):
        raise InvalidParameter(
            f"An object's name has 1 to {_MAX_BYTES} bytes and parts with slashes between them, "
            'none empty, "." or "..".'
        )
    return name


def object_digest(environment_id: str, name: str) -> str:
    """
    Name an object among those of all environments: 64 hexadecimal digits.

    No name leads anywhere else or is too long for a store, and ``a`` may be there beside ``a/b``.
    """
    return hashlib.sha256(f"{environment_id}\0{name}".encode()).hexdigest()
