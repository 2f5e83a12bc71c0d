"""Public access tokens: minted with a secret key, verified into a grant."""

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from jwt import InvalidAlgorithmError, InvalidSignatureError, PyJWS, PyJWTError
from jwt.algorithms import HMACAlgorithm

from runcast.auth.grant import Grant
from runcast.auth.keys import KeyRing, SigningKey
from runcast.core.scope import compile_scopes
from runcast.core.timespan import MAX_UNIX_TIME
from runcast.errors import ExpiredToken, InvalidParameter, InvalidToken

ISSUER = "https://id.trigger.dev"
AUDIENCE = "https://api.trigger.dev"
MAX_TOKEN_LENGTH = 8192
MAX_SCOPES = 500
DEFAULT_MAX_SECONDS = 30 * 86400.0

_MAX_TEXT_LENGTH = 512
# Clocks of backends may be ahead, but a token from far ahead would outlive every revocation.
_MAX_AHEAD_SECONDS = 300.0
_MAX_SKIP_COLUMNS = 100

# Stricter than base64url readers are: with padding allowed, one token would have several
# spellings and a one-time token several uses.
_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

# Claims end up in queries, and Postgres holds neither NUL nor lone surrogates.
_STORABLE_TEXT = re.compile(rf"[^\0\ud800-\udfff]{{1,{_MAX_TEXT_LENGTH}}}")

# One text for both cases, so that nobody learns which environments exist.
_NOT_OURS = "The public access token is not signed with a key of the environment that it names."


class _Hs256(HMACAlgorithm):
    """
    HMAC with SHA-256 over keys that `SigningKey` has checked.

    The official keys are shorter than what PyJWT likes to warn about, and its search for public
    keys misused as secrets (RFC 8725 section 2.1) guards callers that accept other algorithms.
    """

    def __init__(self) -> None:
        super().__init__(HMACAlgorithm.SHA256)

    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key

    def check_key_length(self, key: bytes) -> None:
        return None


_JWS = PyJWS(algorithms=[])
_JWS.register_algorithm("HS256", _Hs256())


def mint_token(
    *,
    secret: str,
    environment_id: str,
    scopes: Iterable[str],
    expires_at: float,
    now: float,
    one_time: bool = False,
    skip_columns: Iterable[str] = (),
    token_id: str | None = None,
    subject: str | None = None,
) -> str:
    """
    Sign a public access token, as the official SDK does.

    Pure: equal arguments give equal tokens. One-time tokens for equal purposes need different
    values of ``token_id``, or a second apart, to be different tokens.

    Args:
        secret: A secret key of the environment.
        scopes: Permissions such as ``read:runs:run_123``; none allow nothing.
        expires_at: Unix time in seconds, rounded down to a whole one.
        now: Unix time in seconds.
        skip_columns: Columns of runs to withhold from the bearer.
        token_id: By which this token can be revoked.
        subject: Whom it is for: all tokens of one subject can be revoked together.

    Raises:
        InvalidParameter: An argument cannot be put into a token that verifies; says which.

    Source: wire/trigger-wire.md 1.3.
    """
    if not now < expires_at <= MAX_UNIX_TIME or math.floor(expires_at) <= now:
        raise InvalidParameter(
            "A token expires at a Unix time in seconds that is at least a second ahead."
        )
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": math.floor(now),
        "exp": math.floor(expires_at),
        "sub": _mintable([environment_id], 1, "The environment id")[0],
        "pub": True,
        "scopes": _mintable(scopes, MAX_SCOPES, "Scopes"),
    }
    if one_time:
        claims["otu"] = True
    if skipped := _mintable(skip_columns, _MAX_SKIP_COLUMNS, "Columns to skip"):
        claims["realtime"] = {"skipColumns": skipped}
    if token_id is not None:
        claims["jti"] = _mintable([token_id], 1, "The token id")[0]
    if subject is not None:
        claims["act"] = {"sub": _mintable([subject], 1, "The subject")[0]}
    payload = json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode()
    # An empty `typ` leaves the header exactly {"alg":"HS256"}.
    token = _JWS.encode(payload, SigningKey(secret).secret, "HS256", headers={"typ": ""})
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidParameter(
            f"The token would be longer than {MAX_TOKEN_LENGTH} bytes; give it fewer scopes, "
            "for example one on a tag or a batch instead of many on runs."
        )
    return token


def is_public_token(token: str) -> bool:
    """
    Tell public access tokens, good or bad, from secret keys.

    A public access token has three parts separated by dots, and a payload that says so itself.
    """
    try:
        _public_claims(_unverified_payload(token))
    except InvalidToken:
        return False
    return True


def read_subject(token: str) -> str:
    """
    Read which environment a token claims to be for, to choose the keys for `verify_token`.

    Nothing is verified, but the answer is short text that a database accepts.

    Raises:
        InvalidToken: Malformed, or not a public access token.
    """
    return _subject(_public_claims(_unverified_payload(token)))


def verify_token(
    token: str, *, keys: KeyRing, now: float, max_seconds: float = DEFAULT_MAX_SECONDS
) -> Grant:
    """
    Check a public access token and return what it allows.

    Pure: no I/O and no clock, so tests choose any ``now``. Retired keys are tried only when no
    active key made the signature.

    Args:
        token: Compact JWS, three base64url parts, at most 8192 bytes.
        keys: Keys of the environment that `read_subject` named; none if there is no such.
        now: Unix time in seconds.
        max_seconds: How long any token is good after ``iat``: revocations are kept for as long.

    Returns:
        A grant whose ``expires_at`` is later than ``now``; the caller ends the session at that
        time. With a retired key it is no later than the end of the key's grace period.

    Raises:
        InvalidToken: Malformed, other algorithm, bad signature, other environment, other
            audience or issuer, not yet valid, no ``exp``, or a claim of the wrong type.
        ExpiredToken: ``exp`` is at or before ``now``.

    Source: RFC 7519 section 4.1 (claims), RFC 8725 section 3.1 (algorithms),
    wire/trigger-wire.md 1.3.
    """
    _check_form(token)
    payload, key = _verify_signature(token, keys, now)
    claims = _public_claims(payload)
    if _subject(claims) != keys.environment_id:
        raise InvalidToken(_NOT_OURS)
    if claims.get("iss") != ISSUER:
        raise InvalidToken(f'The "iss" claim of a public access token is "{ISSUER}".')
    if not _is_for_us(claims.get("aud")):
        raise InvalidToken(f'The "aud" claim of a public access token is "{AUDIENCE}".')
    issued_at, expires_at = _check_times(claims, now, max_seconds)
    if key.expires_at is not None:
        expires_at = min(expires_at, key.expires_at)
    scopes = frozenset(_texts(claims.get("scopes", []), MAX_SCOPES, "scopes"))
    digest = token_hash(token)
    return Grant(
        environment_id=keys.environment_id,
        permissions=compile_scopes(scopes),
        scopes=scopes,
        expires_at=expires_at,
        skip_columns=_skip_columns(claims.get("realtime", {})),
        one_time=_one_time(claims.get("otu", False)),
        token_hash=digest,
        token_id=_token_id(claims) or digest,
        subject=_act_subject(claims),
        issued_at=issued_at,
        key_hash=token_hash(key.secret),
    )


def token_hash(token: str) -> str:
    """Give what a token or key is known by where it must not be kept itself."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _check_form(token: str) -> None:
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidToken(f"A public access token has at most {MAX_TOKEN_LENGTH} bytes.")
    if not _COMPACT_JWS.fullmatch(token):
        raise InvalidToken("A public access token has three base64url parts separated by dots.")


def _unverified_payload(token: str) -> bytes:
    _check_form(token)
    part = token.split(".")[1]
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise InvalidToken("The payload of the token is not base64url.") from None


def _verify_signature(token: str, keys: KeyRing, now: float) -> tuple[bytes, SigningKey]:
    for key in keys.usable_keys(now):
        try:
            decoded = _JWS.decode_complete(token, key.secret, algorithms=["HS256"])
        except InvalidSignatureError:
            continue
        except InvalidAlgorithmError:
            raise InvalidToken("A public access token is signed with HS256, no other.") from None
        except PyJWTError:
            raise InvalidToken("The public access token is not a well-formed JWS.") from None
        payload: bytes = decoded["payload"]
        return payload, key
    raise InvalidToken(_NOT_OURS)


def _public_claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = json.loads(payload.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidToken("The payload of the token is not JSON.") from None
    if not isinstance(claims, dict) or claims.get("pub") is not True:
        raise InvalidToken('The payload of a public access token has "pub": true.')
    return claims


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _subject(claims: dict[str, Any]) -> str:
    subject = claims.get("sub")
    if not _is_text(subject):
        raise InvalidToken('The "sub" claim of a public access token is an environment id.')
    return str(subject)


def _is_for_us(audience: object) -> bool:
    if isinstance(audience, list):
        return AUDIENCE in audience
    return audience == AUDIENCE


def _check_times(claims: dict[str, Any], now: float, max_seconds: float) -> tuple[float, float]:
    """Check all claims about time; return when the token was issued and when it ends."""
    issued_at = _seconds(claims, "iat", 0)
    expires_at = _seconds(claims, "exp", None)
    if "iat" in claims:
        expires_at = min(expires_at, issued_at + max_seconds)
    if expires_at <= now:
        raise ExpiredToken("The public access token has expired; ask your backend for a new one.")
    if expires_at > now + max_seconds + _MAX_AHEAD_SECONDS:
        raise InvalidToken(
            f'A public access token lives for {max_seconds / 86400:g} days at most: sign "iat", '
            'the time at which it is made, and a nearer "exp".'
        )
    if _seconds(claims, "nbf", 0) > now:
        raise InvalidToken('The public access token is not yet valid: "nbf" lies ahead.')
    return issued_at, expires_at


def _seconds(claims: dict[str, Any], name: str, default: float | None) -> float:
    value = claims.get(name, default)
    # Compared before any conversion: inf and nan fail here, and so does 10**400.
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= MAX_UNIX_TIME
    ):
        raise InvalidToken(f'The "{name}" claim of the token is not a Unix time in seconds.')
    return float(value)


def _one_time(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidToken('The "otu" claim of the token is not true or false.')
    return value


def _token_id(claims: dict[str, Any]) -> str | None:
    value = claims.get("jti")
    if value is not None and not _is_text(value):
        raise InvalidToken('The "jti" claim of the token is not a short text.')
    return value


def _act_subject(claims: dict[str, Any]) -> str | None:
    """Read who acts with the token; RFC 8693 section 4.1. (``sub`` is the environment.)"""
    act = claims.get("act", {})
    if not isinstance(act, dict):
        raise InvalidToken('The "act" claim of the token is not an object.')
    value = act.get("sub")
    if value is not None and not _is_text(value):
        raise InvalidToken('The "act.sub" claim of the token is not a short text.')
    return value


def _skip_columns(realtime: object) -> tuple[str, ...]:
    if not isinstance(realtime, dict):
        raise InvalidToken('The "realtime" claim of the token is not an object.')
    return _texts(realtime.get("skipColumns", []), _MAX_SKIP_COLUMNS, "realtime.skipColumns")


def _texts(value: object, limit: int, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > limit or not all(map(_is_text, value)):
        raise InvalidToken(f'The "{name}" claim is not a list of at most {limit} short texts.')
    return tuple(dict.fromkeys(value))


def _mintable(values: Iterable[str], limit: int, what: str) -> list[str]:
    # A lone string is iterable too, and would become one scope for each letter.
    texts = [values] if isinstance(values, str) else list(values)
    if isinstance(values, str) or len(texts) > limit or not all(map(_is_text, texts)):
        raise InvalidParameter(
            f"{what}: at most {limit}, each 1 to {_MAX_TEXT_LENGTH} characters of Unicode text."
        )
    return texts


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _STORABLE_TEXT.fullmatch(value) is not None
