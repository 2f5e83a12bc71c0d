"""The verified result that handlers get: what the caller may do, in which environment."""

import json
from collections.abc import Hashable
from dataclasses import dataclass, fields

from runcast.core.scope import Permissions, compile_scopes

_EVERYTHING = frozenset({"admin"})
_PERMITS_EVERYTHING = compile_scopes(_EVERYTHING)


@dataclass(frozen=True, slots=True)
class Grant:
    """
    What one caller may do in one environment.

    Attributes:
        scopes: As the token spells them; ``permissions`` is the same, compiled.
        expires_at: Unix seconds at which open connections must end; None for secret keys only.
        skip_columns: Columns of runs that the token withholds from its bearer, in its order.
        one_time: The token may create runs once; ``token_hash`` says which token was spent.
        token_hash: Hex SHA-256 of the whole token, or secret key, never the token itself.
        token_id: The ``jti`` claim, or else ``token_hash``; tokens handed out for a token have its.
        subject: Whom the token is for, in the application's own terms: the ``act.sub`` claim.
        issued_at: Unix seconds; 0 if the token does not say.
        key_hash: Hex SHA-256 of the secret key that signed the token, or that was shown.
    """

    environment_id: str
    permissions: Permissions
    scopes: frozenset[str]
    expires_at: float | None
    skip_columns: tuple[str, ...] = ()
    one_time: bool = False
    token_hash: str = ""
    is_secret_key: bool = False
    token_id: str = ""
    subject: str | None = None
    issued_at: float = 0.0
    key_hash: str = ""

    @property
    def rights(self) -> Hashable:
        """What it lets its bearer see: equal ones show the same."""
        return self.permissions, frozenset(self.skip_columns), self.is_secret_key

    def to_json(self) -> str:
        """All of it as text, for another gateway."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        del values["permissions"]
        return json.dumps(values | {"scopes": sorted(self.scopes)})

    @classmethod
    def from_json(cls, text: str) -> "Grant":
        """Read what `to_json` gave."""
        values = json.loads(text)
        scopes = frozenset(values.pop("scopes"))
        skip_columns = tuple(values.pop("skip_columns"))
        return cls(
            **values, scopes=scopes, permissions=compile_scopes(scopes), skip_columns=skip_columns
        )

    @classmethod
    def for_secret_key(cls, environment_id: str, token_hash: str = "") -> "Grant":
        """Allow everything in one environment, for as long as the connection lasts."""
        return cls(
            environment_id=environment_id,
            permissions=_PERMITS_EVERYTHING,
            scopes=_EVERYTHING,
            expires_at=None,
            token_hash=token_hash,
            is_secret_key=True,
            key_hash=token_hash,
        )
