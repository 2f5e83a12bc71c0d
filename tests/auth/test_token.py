"""Public access tokens: what verifies, what never does, and what a grant then says."""

import base64
import hashlib
import hmac
import json
import math
from typing import Any

import jwt
import pytest
from hypothesis import example, given, strategies as st

from runcast.auth.grant import Grant
from runcast.auth.keys import KeyRing, SigningKey
from runcast.auth.token import (
    DEFAULT_MAX_SECONDS,
    MAX_SCOPES,
    MAX_TOKEN_LENGTH,
    is_public_token,
    mint_token,
    read_subject,
    token_hash,
    verify_token,
)
from runcast.core.scope import Resource, compile_scopes
from runcast.core.timespan import MAX_UNIX_TIME
from runcast.errors import AuthError, ExpiredToken, InvalidParameter, InvalidToken

NOW = 1_700_000_000.0
SECRET = "tr_dev_" + "k" * 20  # as short as official keys are
OTHER_SECRET = "tr_dev_" + "o" * 20
KEYS = KeyRing("env_1", (SigningKey(SECRET),))
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

CLAIMS: dict[str, Any] = {
    "iss": "https://id.trigger.dev",
    "aud": "https://api.trigger.dev",
    "iat": int(NOW),
    "exp": int(NOW) + 900,
    "sub": "env_1",
    "pub": True,
    "scopes": ["read:runs:run_1"],
}


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def sign(payload: bytes, *, header: bytes = b'{"alg":"HS256"}', secret: str = SECRET) -> str:
    """Make a token by hand, with nothing of the code under test and nothing of PyJWT."""
    signed = f"{encode(header)}.{encode(payload)}"
    return f"{signed}.{encode(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


def sign_claims(secret: str = SECRET, /, **changes: Any) -> str:
    """The good claims with some replaced; ``...`` removes one."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not ...}
    return sign(json.dumps(claims).encode(), secret=secret)


def mint(**changes: Any) -> str:
    arguments: dict[str, Any] = {
        "secret": SECRET,
        "environment_id": "env_1",
        "scopes": ["read:runs:run_1"],
        "expires_at": NOW + 900,
        "now": NOW,
    }
    return mint_token(**{**arguments, **changes})


def verify(token: str, keys: KeyRing = KEYS, now: float = NOW) -> Grant:
    return verify_token(token, keys=keys, now=now)


def assert_refused(token: str, keys: KeyRing = KEYS) -> None:
    """Refused as invalid, with the stable code and without a word about secrets."""
    with pytest.raises(InvalidToken) as caught:
        verify(token, keys)
    assert (caught.value.code, caught.value.http_status) == ("invalid_token", 401)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


# --- what verifies


def test_a_minted_token_has_the_official_header_and_claims() -> None:
    header, payload, _ = mint(one_time=True, skip_columns=["payload"], token_id="id_1").split(".")
    assert decode(header) == b'{"alg":"HS256"}'
    assert json.loads(decode(payload)) == {
        **CLAIMS,
        "otu": True,
        "realtime": {"skipColumns": ["payload"]},
        "jti": "id_1",
    }


def test_optional_claims_are_left_out() -> None:
    assert json.loads(decode(mint().split(".")[1])) == CLAIMS


def test_minting_is_pure() -> None:
    assert mint() == mint()
    assert mint(token_id="a") != mint(token_id="b")


def test_a_grant_says_all_that_the_token_says() -> None:
    token = mint(
        scopes=["read:tags:user", "write:runs"],
        one_time=True,
        skip_columns=["payload", "output"],
        token_id="id_1",
        subject="user_1",
    )
    assert verify(token) == Grant(
        environment_id="env_1",
        permissions=compile_scopes(["read:tags:user", "write:runs"]),
        scopes=frozenset({"read:tags:user", "write:runs"}),
        expires_at=NOW + 900,
        skip_columns=("payload", "output"),
        one_time=True,
        token_hash=hashlib.sha256(token.encode()).hexdigest(),
        is_secret_key=False,
        token_id="id_1",
        subject="user_1",
        issued_at=NOW,
        key_hash=hashlib.sha256(SECRET.encode()).hexdigest(),
    )
    assert token not in repr(verify(token))


def test_a_token_without_scopes_verifies_and_allows_nothing() -> None:
    grant = verify(sign_claims(scopes=...))
    assert grant.scopes == frozenset()
    assert not grant.permissions.allows("read", [Resource("runs")])


def test_a_token_made_by_plain_pyjwt_verifies() -> None:
    # PyJWT adds "typ": "JWT" and wants longer secrets than the official ones.
    secret = "tr_dev_" + "long" * 8
    token = jwt.encode(CLAIMS, secret)
    grant = verify(token, KeyRing("env_1", (SigningKey(secret),)))
    assert grant.scopes == {"read:runs:run_1"}


def test_a_minted_token_verifies_with_plain_pyjwt() -> None:
    secret = "tr_dev_" + "long" * 8
    claims = jwt.decode(
        mint(secret=secret),
        secret,
        algorithms=["HS256"],
        audience="https://api.trigger.dev",
        issuer="https://id.trigger.dev",
        options={"verify_exp": False},
    )
    assert claims == CLAIMS


def test_a_token_made_by_hand_verifies() -> None:
    assert verify(sign_claims()).expires_at == NOW + 900


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": ...},
        {"iat": int(NOW) + 60},  # the backend's clock is ahead of ours
        {"nbf": int(NOW)},
        {"exp": NOW + 0.5},
        {"exp": MAX_UNIX_TIME},
        {"aud": ["https://elsewhere.example", "https://api.trigger.dev"]},
        {"otu": False},
        {"realtime": {}},
        {"realtime": {"skipColumns": [], "future": 1}},
        {"act": {"sub": "user_1"}, "future": [None]},
        {"scopes": []},
        {"scopes": ["a:b:c:d", "nonsense", "read:tags:\u00e9\U0001f600"]},
    ],
)
def test_unusual_but_good_claims_are_accepted(changes: dict[str, Any]) -> None:
    assert verify(sign_claims(**changes)).environment_id == "env_1"


storable = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40
)


@given(
    scopes=st.lists(storable, max_size=20),
    lifetime=st.floats(1, 10**9),
    now=st.floats(0, 4 * 10**9),
    one_time=st.booleans(),
    skip_columns=st.lists(storable, max_size=5),
    token_id=st.none() | storable,
    subject=st.none() | storable,
    environment_id=storable,
)
def test_whatever_is_minted_verifies_to_the_same(
    scopes: list[str],
    lifetime: float,
    now: float,
    one_time: bool,
    skip_columns: list[str],
    token_id: str | None,
    subject: str | None,
    environment_id: str,
) -> None:
    token = mint_token(
        secret=SECRET,
        environment_id=environment_id,
        scopes=scopes,
        expires_at=math.floor(now + lifetime) + 1,
        now=now,
        one_time=one_time,
        skip_columns=skip_columns,
        token_id=token_id,
        subject=subject,
    )
    assert is_public_token(token)
    assert read_subject(token) == environment_id
    grant = verify(token, KeyRing(environment_id, (SigningKey(SECRET),)), now)
    assert grant.scopes == frozenset(scopes)
    assert grant.permissions == compile_scopes(scopes)
    assert grant.skip_columns == tuple(dict.fromkeys(skip_columns))
    assert (grant.one_time, grant.subject) == (one_time, subject)
    assert grant.token_id == (token_id or grant.token_hash)
    assert grant.issued_at == math.floor(now)
    assert grant.key_hash == token_hash(SECRET)
    assert grant.expires_at == min(
        math.floor(now + lifetime) + 1, math.floor(now) + DEFAULT_MAX_SECONDS
    )


# --- time


def test_a_token_expires_at_exp_without_tolerance() -> None:
    token = mint(expires_at=NOW + 900)
    assert verify(token, now=NOW + 899.999).expires_at == NOW + 900
    with pytest.raises(ExpiredToken) as caught:
        verify(token, now=NOW + 900)
    assert (caught.value.code, caught.value.http_status) == ("expired_token", 401)


def test_expiry_is_told_only_to_those_whose_signature_is_good() -> None:
    assert_refused(sign_claims(OTHER_SECRET, exp=int(NOW) - 1))


def test_no_token_lives_longer_than_revocations_are_kept() -> None:
    token = sign_claims(exp=MAX_UNIX_TIME)
    assert verify(token).expires_at == math.floor(NOW) + DEFAULT_MAX_SECONDS
    with pytest.raises(ExpiredToken):
        verify(token, now=NOW + DEFAULT_MAX_SECONDS)
    grant = verify_token(token, keys=KEYS, now=NOW, max_seconds=60)
    assert grant.expires_at == math.floor(NOW) + 60


@pytest.mark.parametrize(
    "changes", [{"iat": ..., "exp": NOW + 31 * 86400}, {"iat": NOW + 600, "exp": NOW + 31 * 86400}]
)
def test_nor_one_that_does_not_say_when_it_was_issued_or_says_later(
    changes: dict[str, Any],
) -> None:
    assert_refused(sign_claims(**changes))


def test_a_token_is_refused_before_nbf() -> None:
    token = sign_claims(nbf=int(NOW) + 10)
    assert_refused(token)
    assert verify(token, now=NOW + 10).environment_id == "env_1"


# --- what never verifies

HUGE = 10**400


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": ...},
        {"exp": None},
        {"exp": str(int(NOW) + 900)},
        {"exp": True},
        {"exp": [int(NOW) + 900]},
        {"exp": math.inf},
        {"exp": math.nan},
        {"exp": HUGE},
        {"exp": -HUGE},
        {"exp": (int(NOW) + 900) * 1000},
        {"iat": "yesterday"},
        {"nbf": "1"},
        {"nbf": None},
        {"aud": ...},
        {"aud": "https://elsewhere.example"},
        {"aud": []},
        {"aud": [["https://api.trigger.dev"]]},
        {"aud": {"https://api.trigger.dev": 1}},
        {"iss": ...},
        {"iss": "https://elsewhere.example"},
        {"iss": ["https://id.trigger.dev"]},
        {"pub": ...},
        {"pub": False},
        {"pub": 1},
        {"pub": "true"},
        {"sub": ...},
        {"sub": None},
        {"sub": 1},
        {"sub": ["env_1"]},
        {"sub": ""},
        {"sub": "env_2"},
        {"sub": "env_1\0"},
        {"sub": "\ud800"},
        {"sub": "e" * 513},
        {"scopes": None},
        {"scopes": "read:runs"},
        {"scopes": {"read:runs": True}},
        {"scopes": ["read:runs", 1]},
        {"scopes": ["read:runs", ["read:all"]]},
        {"scopes": [""]},
        {"scopes": ["read:tags:\0"]},
        {"scopes": ["read:tags:\udfff"]},
        {"scopes": ["a"] * (MAX_SCOPES + 1)},
        {"act": "user_1"},
        {"act": {"sub": 1}},
        {"act": {"sub": ""}},
        {"otu": 1},
        {"otu": None},
        {"realtime": None},
        {"realtime": []},
        {"realtime": {"skipColumns": "payload"}},
        {"realtime": {"skipColumns": [1]}},
        {"realtime": {"skipColumns": ["a"] * 101}},
        {"jti": 1},
        {"jti": "\0"},
    ],
    ids=lambda changes: ascii(changes)[:60],
)
def test_a_claim_that_is_missing_or_of_the_wrong_kind_is_refused(changes: dict[str, Any]) -> None:
    assert_refused(sign_claims(**changes))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"1",
        b"\xff\xfe",
        b'{"pub":true,"exp":1e400}',
        b'{"pub":true,"x":Infinity}',
        b'{"pub":true,"x":' + b"9" * 5000 + b"}",
        b"[" * 5000,
        b'{"pub":true}' + b"{",
        '{"pub":true}'.encode("utf-16"),
    ],
    ids=lambda payload: ascii(payload)[:30],
)
def test_a_signed_payload_that_is_not_a_claims_object_is_refused(payload: bytes) -> None:
    token = sign(payload)
    assert_refused(token)
    with pytest.raises(InvalidToken):
        read_subject(token)


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none"}',
        b'{"alg":"None"}',
        b'{"alg":""}',
        b'{"alg":null}',
        b'{"alg":["HS256"]}',
        b'{"alg":"HS512"}',
        b'{"alg":"RS256"}',
        b'{"alg":"hs256"}',
        b"{}",
        b"[]",
        b'"HS256"',
        b"",
        b"{",
        b"[" * 3000,
        b'{"alg":"HS256","crit":["exp"],"exp":1}',
        b'{"alg":"HS256","crit":["b64"],"b64":false}',
        b'{"alg":"HS256","b64":false}',
        b'{"alg":"HS256","kid":1}',
    ],
    ids=lambda header: ascii(header)[:45],
)
def test_any_other_header_is_refused_even_when_signed(header: bytes) -> None:
    assert_refused(sign(json.dumps(CLAIMS).encode(), header=header))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_other_algorithms_are_refused_though_the_key_fits(algorithm: str) -> None:
    secret = "tr_dev_" + "long" * 20
    keys = KeyRing("env_1", (SigningKey(secret),))
    assert verify(jwt.encode(CLAIMS, secret, "HS256"), keys).environment_id == "env_1"
    assert_refused(jwt.encode(CLAIMS, secret, algorithm), keys)


def test_an_unsigned_token_is_refused() -> None:
    header, payload, signature = sign(json.dumps(CLAIMS).encode(), header=b'{"alg":"none"}').split(
        "."
    )
    assert_refused(f"{header}.{payload}.")
    assert_refused(f"{header}.{payload}.{signature}")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        SECRET,
        mint() + ".",
        mint() + " ",
        mint() + "\n",
        " " + mint(),
        mint() + "é",
        mint() + "\ud800",
        mint().replace(".", ". "),
        mint() + "\0",
        "a" * (MAX_TOKEN_LENGTH + 1),
        "a." * 10**6,
    ],
    ids=lambda token: ascii(token)[-20:],
)
def test_a_malformed_token_is_refused(token: str) -> None:
    assert_refused(token)
    with pytest.raises(InvalidToken):
        read_subject(token)
    assert not is_public_token(token)


def test_a_token_is_refused_for_its_length_alone() -> None:
    def padded(size: int) -> str:
        return sign(json.dumps({**CLAIMS, "x": "x" * size}).encode())

    base = len(padded(0))
    fits = next(size for size in range(5800, 6200) if len(padded(size)) > MAX_TOKEN_LENGTH) - 1
    assert base < len(padded(fits)) <= MAX_TOKEN_LENGTH
    assert verify(padded(fits)).environment_id == "env_1"
    assert_refused(padded(fits + 1))


@pytest.mark.parametrize("padding", ["=", "==", "===", "%3D"])
def test_a_token_has_one_spelling_so_that_one_time_means_once(padding: str) -> None:
    # PyJWT accepts padding, which would give the same token another hash.
    token = mint(one_time=True)
    assert_refused(token + padding)
    header, payload, signature = token.split(".")
    assert_refused(f"{header}{padding}.{payload}.{signature}")
    assert_refused(f"{header}.{payload}{padding}.{signature}")


def test_unused_bits_of_the_signature_are_not_free() -> None:
    # 32 bytes fill 43 letters but for 2 bits: 3 other last letters decode to the same bytes.
    token = mint()
    spellings = [token[:-1] + letter for letter in BASE64URL]
    assert len({decode(each.split(".")[2]) for each in spellings}) == 16
    for each in spellings:
        if each != token:
            assert_refused(each)


def test_no_single_letter_of_a_token_can_be_changed() -> None:
    token = mint()
    for position, letter in enumerate(token):
        for other in {BASE64URL[(BASE64URL.find(letter) + 1) % 64], "A", ".", "="} - {letter}:
            assert_refused(token[:position] + other + token[position + 1 :])


@given(st.data())
def test_no_byte_can_be_changed_inserted_or_removed(data: st.DataObject) -> None:
    token = mint()
    start = data.draw(st.integers(0, len(token) - 1))
    end = data.draw(st.integers(start, min(start + 3, len(token))))
    patch = data.draw(st.text(st.characters(max_codepoint=255), max_size=3))
    changed = token[:start] + patch + token[end:]
    if changed != token:
        assert_refused(changed)


def never_fails(token: str) -> None:
    """Garbage is told apart without any error but an AuthError."""
    assert is_public_token(token) in (True, False)
    for ask in (read_subject, verify):
        with pytest.raises(AuthError):
            ask(token)


@given(st.text())
def test_random_text_never_raises_anything_else(token: str) -> None:
    never_fails(token)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children)
    ),
    max_leaves=6,
)


@given(header=st.binary(max_size=40), payload=st.binary(max_size=60), signature=st.binary())
@example(header=b'{"alg":"HS256"}', payload=b"\xff", signature=b"")
def test_random_parts_never_raise_anything_else(
    header: bytes, payload: bytes, signature: bytes
) -> None:
    never_fails(f"{encode(header)}.{encode(payload)}.{encode(signature)}")
    with pytest.raises(AuthError):
        verify(sign(payload, header=header))


@given(st.dictionaries(st.sampled_from(sorted([*CLAIMS, "otu", "realtime", "nbf"])), json_values))
def test_signed_random_claims_give_a_sound_grant_or_an_auth_error(changes: dict[str, Any]) -> None:
    token = sign_claims(**changes)
    try:
        grant = verify(token)
    except AuthError:
        return
    assert grant.environment_id == "env_1"
    assert grant.expires_at is not None
    assert NOW < grant.expires_at <= MAX_UNIX_TIME
    assert all(isinstance(scope, str) for scope in grant.scopes.union(grant.skip_columns))


# --- environments and rotation


@given(
    st.sampled_from(["env_1", "env_2"]),
    st.sampled_from([SECRET, OTHER_SECRET]),
    st.sampled_from(["env_1", "env_2"]),
    st.sampled_from([SECRET, OTHER_SECRET]),
)
def test_a_token_verifies_only_in_its_environment_and_with_its_key(
    minted_for: str, minted_with: str, asked_in: str, known_key: str
) -> None:
    token = mint(environment_id=minted_for, secret=minted_with)
    keys = KeyRing(asked_in, (SigningKey(known_key),))
    if (minted_for, minted_with) == (asked_in, known_key):
        assert verify(token, keys).environment_id == asked_in
    else:
        assert_refused(token, keys)


def test_unknown_environment_wrong_key_and_foreign_environment_are_told_alike() -> None:
    messages = set()
    for keys in (
        KeyRing("env_1", ()),
        KeyRing("env_1", (SigningKey(OTHER_SECRET),)),
        KeyRing("env_2", (SigningKey(SECRET),)),
    ):
        with pytest.raises(InvalidToken) as caught:
            verify(mint(), keys)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_rotation_keeps_tokens_of_the_retired_key_until_its_grace_period_ends() -> None:
    old, new = SigningKey(SECRET, NOW + 100), SigningKey(OTHER_SECRET)
    for keys in (KeyRing("env_1", (new, old)), KeyRing("env_1", (old, new))):
        assert verify(mint(secret=OTHER_SECRET), keys).expires_at == NOW + 900
        # An open connection ends with the grace period too.
        assert verify(mint(), keys).expires_at == NOW + 100
        assert verify(mint(expires_at=NOW + 50), keys).expires_at == NOW + 50
        assert verify(mint(), keys, NOW + 99).expires_at == NOW + 100
        with pytest.raises(InvalidToken):
            verify(mint(), keys, NOW + 100)


def test_a_retired_key_does_not_turn_an_expired_token_into_an_invalid_one() -> None:
    keys = KeyRing("env_1", (SigningKey(SECRET), SigningKey(OTHER_SECRET, NOW + 9000)))
    for secret in (SECRET, OTHER_SECRET):
        with pytest.raises(ExpiredToken):
            verify(mint(secret=secret), keys, NOW + 900)


def test_any_secret_key_of_good_form_signs_even_if_it_resembles_another_kind_of_key() -> None:
    # PyJWT by itself refuses these, which here would be an error 500.
    for secret in ("ssh-rsa_" + "k" * 20, '{"kty":"oct","k":"kkkkkkkkkk"}', "[" * 200):
        keys = KeyRing("env_1", (SigningKey(secret),))
        assert verify(mint(secret=secret), keys).environment_id == "env_1"


# --- classification


def test_a_token_is_public_by_its_payload_alone() -> None:
    assert is_public_token(mint())
    assert is_public_token(sign_claims(OTHER_SECRET, exp=0))
    assert is_public_token("x." + encode(b'{"pub":true}') + ".x")
    assert not is_public_token(sign_claims(pub=...))
    assert not is_public_token(sign_claims(pub=1))
    assert not is_public_token("x.y.z")
    assert not is_public_token("x.yyyyy.z")
    assert not is_public_token(SECRET)


def test_the_subject_is_read_without_any_key() -> None:
    assert read_subject(sign_claims(OTHER_SECRET, sub="env_9", exp=0)) == "env_9"


# --- minting refuses what would not verify


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": NOW},
        {"expires_at": NOW - 1},
        {"expires_at": NOW + 0.5},
        {"expires_at": (NOW + 900) * 1000},
        {"expires_at": math.inf},
        {"expires_at": math.nan},
        {"expires_at": HUGE},
        {"secret": "short"},
        {"environment_id": ""},
        {"environment_id": "e" * 513},
        {"environment_id": "\0"},
        {"scopes": "read:runs"},
        {"scopes": [""]},
        {"scopes": [1]},
        {"scopes": ["read:tags:\ud800"]},
        {"scopes": ["a"] * (MAX_SCOPES + 1)},
        {"scopes": [f"read:runs:run_{number:030}" for number in range(200)]},
        {"skip_columns": "payload"},
        {"skip_columns": ["a"] * 101},
        {"token_id": ""},
        {"token_id": "\0"},
    ],
    ids=lambda changes: ascii(changes)[:50],
)
def test_minting_refuses_what_would_not_verify(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        mint(**changes)
    assert SECRET not in str(caught.value)


@given(st.lists(st.text(max_size=600), max_size=8), st.floats())
def test_minting_gives_a_token_that_verifies_or_a_clear_error(
    scopes: list[str], expires_at: float
) -> None:
    try:
        token = mint(scopes=scopes, expires_at=expires_at)
    except InvalidParameter:
        return
    assert verify(token).scopes == frozenset(scopes)


# --- secret keys


def test_a_secret_key_allows_everything_and_never_expires() -> None:
    grant = Grant.for_secret_key("env_1")
    assert (grant.environment_id, grant.expires_at, grant.is_secret_key) == ("env_1", None, True)
    assert grant.permissions.read_all
    assert grant.permissions.allows("trigger", [Resource("tasks", "any")])
    assert not grant.skip_columns
    assert not grant.one_time
    assert grant == Grant.for_secret_key("env_1")
