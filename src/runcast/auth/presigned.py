"""
Addresses that are their own credential: whoever has one may do one thing with one object.

The key is made from a root key of the environment, so it ends when that key does.
"""

import hashlib
import hmac
import re

from runcast.auth.keys import KeyRing, SigningKey
from runcast.errors import ExpiredToken, InvalidToken

_PURPOSE = b"runcast presigned object"
_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)


def sign_address(key: SigningKey, method: str, path: str, expires_at: int) -> str:
    """
    Sign a method on a path until a time.

    Args:
        path: As it is sent, percent-encoded.
        expires_at: Unix time in seconds.
    """
    secret = hmac.digest(key.secret.encode(), _PURPOSE, hashlib.sha256)
    said = f"{method}\n{path}\n{expires_at}"
    return hmac.digest(secret, said.encode(), hashlib.sha256).hex()


def check_address(
    keys: KeyRing, method: str, path: str, *, expires: str, signature: str, now: float
) -> None:
    """
    Go on only if this was signed, with a key that is still good, and its time is not over.

    Raises:
        InvalidToken: It was not signed like this.
        ExpiredToken: It was good once.
    """
    if not _NUMBER.fullmatch(expires) or not signature.isascii():
        raise _not_ours()
    expires_at = int(expires)
    known = (sign_address(key, method, path, expires_at) for key in keys.usable_keys(now))
    if not any(hmac.compare_digest(each, signature) for each in known):
        raise _not_ours()
    if now >= expires_at:
        raise ExpiredToken("The address has expired; ask for a fresh one.")


def _not_ours() -> InvalidToken:
    return InvalidToken("The signature of this address is wrong; ask for a fresh address.")
