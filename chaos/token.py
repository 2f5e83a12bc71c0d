"""Public tokens for subscribers, signed as a backend would."""

import random
from dataclasses import dataclass

from chaos.clock import now
from chaos.wish import Wish
from runcast.auth.token import mint_token

_LONG_SECONDS = 3600.0


@dataclass(frozen=True)
class Token:
    """
    What a request brings.

    ``expires_at`` is Unix time; None for a secret key.
    """

    text: str
    expires_at: float | None


@dataclass(frozen=True)
class Signer:
    """Makes tokens of one environment."""

    environment_id: str
    key: str

    def token(self, wish: Wish, dice: random.Random) -> Token:
        """A token for a wish: every third one lives for some seconds only."""
        if not wish.scopes:
            return Token(self.key, None)
        begun = now()
        seconds = dice.uniform(4, 20) if dice.random() < 0.33 else _LONG_SECONDS
        expires_at = float(int(begun + seconds))
        text = mint_token(
            secret=self.key,
            environment_id=self.environment_id,
            scopes=wish.scopes,
            now=begun,
            expires_at=expires_at,
            skip_columns=wish.withheld,
        )
        return Token(text, expires_at)
