"""The secret keys of an environment: they authenticate backends and sign public access tokens."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from runcast.errors import InvalidParameter

# Not shorter: whoever holds a token can try out short keys at leisure.
_SECRET_KEY = re.compile(r"[\x21-\x7e]{24,256}")


def looks_like_secret_key(text: str) -> bool:
    """Tell whether a text has the form of a secret key, so that looking it up makes sense."""
    return _SECRET_KEY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """
    A secret key; its UTF-8 bytes, all of them, are the HMAC key.

    ``expires_at`` is None while the key is active. On a retired key it ends the grace period, in
    Unix seconds.

    Raises:
        InvalidParameter: The secret does not have the form of a secret key.
    """

    secret: str = field(repr=False)
    expires_at: float | None = None

    def __post_init__(self) -> None:
        if not looks_like_secret_key(self.secret):
            raise InvalidParameter(
                "A secret key has 24 to 256 printable ASCII characters and no spaces."
            )

    def is_usable(self, now: float) -> bool:
        """Tell whether the key is active, or retired but still in its grace period."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class KeyRing:
    """
    The keys of one environment, newest first.

    A ring without keys refuses every token: it stands for an environment that does not exist.
    """

    environment_id: str
    keys: tuple[SigningKey, ...]

    def usable_keys(self, now: float) -> Iterator[SigningKey]:
        """Give the active keys, then the retired ones whose grace period lasts."""
        yield from (key for key in self.keys if key.expires_at is None)
        yield from (key for key in self.keys if key.expires_at is not None and key.is_usable(now))

    def signing_key(self, now: float) -> SigningKey:
        """
        Choose the key to sign new tokens with.

        Raises:
            InvalidParameter: No key is usable any more.
        """
        for key in self.usable_keys(now):
            return key
        raise InvalidParameter("The environment has no usable secret key; create one first.")
