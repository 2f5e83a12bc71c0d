"""
Public access tokens: signed here with the secret key, or by the gateway where that must be; and
revoked.
"""

import re
import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from runcast.auth.token import mint_token
from runcast.client.clock import now
from runcast.client.errors import InvalidArgument, NotConfigured, UnexpectedAnswer
from runcast.client.gateway_http import GatewayHttp
from runcast.client.revocation import Revocation, revocation_from
from runcast.core.timespan import resolve_expiration
from runcast.errors import InvalidParameter

Targets = bool | str | Sequence[str]
Scopes = str | Iterable[str] | Mapping[str, bool | Mapping[str, Targets]]
"""``["read:tags:user:42"]``, or ``{"read": {"tags": ["user:42"], "runs": True}}``."""
Expiration = str | int | float | datetime | timedelta

_REVOCATIONS = "/api/v1/tokens/revocations"

# Keys of this form authenticate, but nothing that they sign is accepted.
_CANNOT_SIGN = re.compile(r"tr_(dev|stg|prod|preview)_sk_[0-9a-zA-Z]{24}")


class PublicTokens:
    """
    Makes and revokes public access tokens of one environment.

    Args:
        http: The gateway, with a secret key.
        environment_id: None: the gateway is asked for it, once.
    """

    def __init__(self, http: GatewayHttp, environment_id: str | None = None) -> None:
        self._http = http
        self._environment_id = environment_id

    async def create(
        self,
        scopes: Scopes,
        *,
        expires: Expiration = "15m",
        one_time: bool = False,
        skip_columns: Iterable[str] = (),
        subject: str | None = None,
        token_id: str | None = None,
    ) -> str:
        """
        Make a token for a frontend.

        Args:
            scopes: What it allows; see `Scopes`.
            expires: A length of time from now, a time, or Unix seconds.
            one_time: It creates runs only once.
            skip_columns: Fields of runs that the bearer does not get.
            subject: Whom it is for, such as a user's id: `revoke` takes all of one subject back.
            token_id: By which it alone is revoked; a random one where none is given.

        Raises:
            NotConfigured: The client has no secret key.
            InvalidArgument: Nothing that a token can hold.
            ApiError: The gateway refused to tell its environment, or to sign.
            ConnectionLost: It could not be reached.
        """
        key = self._http.bearer.secret_key
        if key is None:
            raise NotConfigured(
                "Only a secret key makes tokens: give secret_key, or set RUNCAST_SECRET_KEY."
            )
        wanted = scope_texts(scopes)
        skipped = [skip_columns] if isinstance(skip_columns, str) else list(skip_columns)
        try:
            expires_at = resolve_expiration(_expiration(expires), now=now())
            if _CANNOT_SIGN.fullmatch(key):
                if token_id is not None:
                    raise InvalidArgument("A key of this kind cannot choose the id of a token.")
                return await self._signed_by_gateway(wanted, expires_at, one_time, skipped, subject)
            return mint_token(
                secret=key,
                environment_id=await self._environment(),
                scopes=wanted,
                expires_at=expires_at,
                now=now(),
                one_time=one_time,
                skip_columns=skipped,
                token_id=token_id or secrets.token_hex(8),
                subject=subject,
            )
        except InvalidParameter as error:
            raise InvalidArgument(error.message) from None

    async def revoke(
        self,
        token: str | None = None,
        *,
        token_id: str | None = None,
        subject: str | None = None,
        issued_before: datetime | None = None,
    ) -> Revocation:
        """
        Take tokens back: one, those of a subject, or all that were issued before a time.

        What is open with them ends within a second, at all gateways.

        Args:
            issued_before: Of a subject; now if left out. Alone: all tokens of the environment.

        Raises:
            ApiError: The gateway refused, as where this says nothing, or several things.
            ConnectionLost: It could not be reached.
        """
        before = None if issued_before is None else issued_before.astimezone(UTC).isoformat()
        wanted = {
            "token": token,
            "tokenId": token_id,
            "subject": subject,
            "issuedBefore": before,
        }
        body = {name: value for name, value in wanted.items() if value is not None}
        return revocation_from(await self._http.send("POST", _REVOCATIONS, body))

    async def revocations(self) -> AsyncGenerator[Revocation, None]:
        """Go over all revocations that count, newest first; errors as in `revoke`."""
        params = [("page[size]", "100")]
        while True:
            page = await self._http.get(_REVOCATIONS, params)
            try:
                found = [revocation_from(each) for each in page["data"]]
                following = page["pagination"].get("next")
            except (KeyError, TypeError, AttributeError) as error:
                raise UnexpectedAnswer("The gateway sent a list that cannot be read.") from error
            for each in found:
                yield each
            if following is None:
                return
            params = [("page[size]", "100"), ("page[after]", following)]

    async def lift_revocation(self, revocation_id: str) -> Revocation:
        """
        Let revoked tokens be good again, as far as they have not expired.

        Raises:
            ApiError: The gateway refused; `NotFound`: there is no such revocation.
            ConnectionLost: It could not be reached.
        """
        path = f"{_REVOCATIONS}/{quote(revocation_id, safe='')}"
        return revocation_from(await self._http.send("DELETE", path))

    async def _environment(self) -> str:
        if self._environment_id is None:
            claims = await self._http.send("POST", "/api/v1/auth/jwt/claims")
            if not isinstance(claims.get("sub"), str):
                raise UnexpectedAnswer("The gateway did not tell which environment the key is of.")
            self._environment_id = claims["sub"]
        return self._environment_id

    async def _signed_by_gateway(
        self,
        scopes: list[str],
        expires_at: float,
        one_time: bool,
        skip_columns: list[str],
        subject: str | None,
    ) -> str:
        body: dict[str, Any] = {
            "scopes": scopes,
            "expirationTime": int(expires_at),
            "oneTimeUse": one_time,
        }
        if skip_columns:
            body["realtime"] = {"skipColumns": skip_columns}
        if subject is not None:
            body["subject"] = subject
        told = await self._http.send("POST", "/api/v1/auth/public-tokens", body)
        if not isinstance(told.get("token"), str):
            raise UnexpectedAnswer("The gateway answered without a token.")
        token: str = told["token"]
        return token


def scope_texts(scopes: Scopes) -> list[str]:
    """
    Write scopes as tokens hold them: ``action``, ``action:type``, ``action:type:id``.

    Raises:
        InvalidArgument: Nothing of the documented forms, or an empty id.
    """
    if isinstance(scopes, str):
        return [scopes]
    if not isinstance(scopes, Mapping):
        return list(scopes)
    texts: list[str] = []
    for action, types in scopes.items():
        if isinstance(types, Mapping):
            for kind, targets in types.items():
                texts += _targets(f"{action}:{kind}", targets)
        elif types is True:
            texts.append(action)
        elif types is not False:
            raise InvalidArgument(
                'Scopes look like {"read": {"runs": ["run_1234"], "tags": True}}.'
            )
    return texts


def _targets(prefix: str, targets: Targets) -> list[str]:
    if isinstance(targets, bool):
        return [prefix] if targets else []
    ids = [targets] if isinstance(targets, str) else list(targets)
    if not all(ids):
        raise InvalidArgument(f"{prefix}: an id is empty; that would allow nothing.")
    return [f"{prefix}:{each}" for each in ids]


def _expiration(expires: Expiration) -> str | int | float | datetime:
    return now() + expires.total_seconds() if isinstance(expires, timedelta) else expires
