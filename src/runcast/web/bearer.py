"""From a request to a grant: finds the token, tells what kind it is, and has it verified."""

import contextlib
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator

from starlette.requests import HTTPConnection

from runcast.auth.grant import Grant
from runcast.auth.keys import KeyRing, looks_like_secret_key
from runcast.auth.revocation import RevocationBook
from runcast.auth.token import DEFAULT_MAX_SECONDS, is_public_token, read_subject, verify_token
from runcast.core.run import Run
from runcast.core.scope import Resource
from runcast.errors import AuthError, GatewayError, InsufficientScope, InvalidToken, MissingToken
from runcast.ports import Clock
from runcast.web.key_directory import KeyDirectory


class Bearer:
    """
    Turns tokens into grants. Tokens are neither logged nor named in errors.

    A verified public token is remembered by its hash, no longer than its keys are (see
    `KeyDirectory`) and never past its expiry.
    """

    def __init__(
        self,
        keys: KeyDirectory,
        *,
        clock: Clock,
        revocations: RevocationBook,
        max_token_seconds: float = DEFAULT_MAX_SECONDS,
        max_tokens: int = 10_000,
    ) -> None:
        self.rejections: Counter[str] = Counter()  # by code
        self._keys = keys
        self._clock = clock
        self._revocations = revocations
        self._max_token_seconds = max_token_seconds
        self._max_tokens = max_tokens
        self._verified: OrderedDict[bytes, tuple[Grant, float]] = OrderedDict()

    async def authenticate(
        self,
        connection: HTTPConnection,
        *,
        public_tokens: bool = True,
        token_in_query: bool = False,
    ) -> Grant:
        """
        Say what the caller of a request may do.

        Args:
            public_tokens: Whether public access tokens are accepted, or secret keys only.
            token_in_query: Whether ``?token=`` counts when there is no Authorization header.

        Raises:
            MissingToken: Nothing that could be a token came with the request.
            InvalidToken: Unknown, malformed, or of a kind that is not accepted.
            ExpiredToken: It was good once.
            TokenRevoked: It was taken back.
            BackendError: Whether it was cannot be told.
        """
        with self._counting():
            token = _find_token(connection, token_in_query)
            if not public_tokens and is_public_token(token):
                raise InvalidToken("Use a secret key here; public access tokens are not accepted.")
            return await self._grant_for(token)

    async def grant_for(self, token: str) -> Grant:
        """Say what the bearer of a secret key or a public access token may do; as above."""
        with self._counting():
            return await self._grant_for(token)

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        """Count who is turned away meanwhile."""
        try:
            yield
        except AuthError as error:
            self.rejections[error.code] += 1
            raise

    async def _grant_for(self, token: str) -> Grant:
        grant = await self.verify(token)
        self._revocations.check(grant, self._clock.now())
        return grant

    async def verify(self, token: str) -> Grant:
        """
        Say what a secret key or a public access token allows, whether it is revoked or not.

        Raises:
            InvalidToken: Neither a known secret key nor a good public access token.
            ExpiredToken: It was good once.
        """
        digest = _digest(token)
        if (remembered := self._remembered(digest)) is not None:
            return remembered
        if is_public_token(token):
            return await self._verify(token, digest)
        if looks_like_secret_key(token):
            environment_id = await self._keys.environment_id(token)
            if environment_id is not None:
                return Grant.for_secret_key(environment_id, digest.hex())
        raise InvalidToken("This is neither a secret key nor a public access token known here.")

    def recall(self, token: str) -> Grant | None:
        """As `grant_for`, if nothing has to be read for it; None: ask that, it may refuse."""
        try:
            grant = self._recall(token)
            if grant is not None:
                self._revocations.check(grant, self._clock.now())
        except GatewayError:
            return None
        return grant

    def _recall(self, token: str) -> Grant | None:
        digest = _digest(token)
        if (remembered := self._remembered(digest)) is not None:
            return remembered
        if is_public_token(token):
            ring = self._keys.known_key_ring(read_subject(token))
            return None if ring is None else self._verified_by(ring, token, digest)
        if looks_like_secret_key(token) and (known := self._keys.known_environment_id(token)):
            return Grant.for_secret_key(known, digest.hex())
        return None

    def _remembered(self, digest: bytes) -> Grant | None:
        entry = self._verified.get(digest)
        if entry is None or self._clock.now() >= entry[1]:
            return None
        self._verified.move_to_end(digest)
        return entry[0]

    async def _verify(self, token: str, digest: bytes) -> Grant:
        environment_id = read_subject(token)
        ring = await self._keys.key_ring(environment_id)
        try:
            return self._verified_by(ring, token, digest)
        except InvalidToken:
            # It may be signed with a key that is newer than what is remembered.
            recent = await self._keys.recent_key_ring(environment_id)
            if recent == ring:
                raise
            return self._verified_by(recent, token, digest)

    def _verified_by(self, ring: KeyRing, token: str, digest: bytes) -> Grant:
        """Verify a public token, and remember it."""
        now = self._clock.now()
        grant = verify_token(token, keys=ring, now=now, max_seconds=self._max_token_seconds)
        assert grant.expires_at is not None
        until = self._keys.key_ring_known_until(ring.environment_id)
        self._verified[digest] = (grant, min(grant.expires_at, until))
        self._verified.move_to_end(digest)
        while len(self._verified) > self._max_tokens:
            self._verified.popitem(last=False)
        return grant


def require(grant: Grant, action: str, *resources: Resource) -> None:
    """
    Go on only if the grant allows ``action`` on at least one of the resources.

    The error names the first resource, so that is one which the caller knows already.

    Raises:
        InsufficientScope: It does not.
    """
    if not grant.permissions.allows(action, resources):
        raise _insufficient(action, resources[0])


def require_every(grant: Grant, action: str, resources: Iterable[Resource]) -> None:
    """
    Go on only if the grant allows ``action`` on each of the resources.

    Raises:
        InsufficientScope: There is one on which it does not.
    """
    for resource in resources:
        require(grant, action, resource)


def require_read(grant: Grant, run: Run) -> None:
    """
    Go on only if the grant allows to read the run, by its id, task, a tag or its batch.

    Raises:
        InsufficientScope: It does not.
    """
    if not grant.permissions.may_read(run):
        raise _insufficient("read", Resource("runs", run.id))


def _insufficient(action: str, resource: Resource) -> InsufficientScope:
    scope = ":".join(part for part in (action, *resource) if part is not None)
    return InsufficientScope(f'The token does not allow this; it would need the scope "{scope}".')


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def token_of(authorization: str) -> str | None:
    """Find the token in an Authorization header."""
    scheme, _, token = authorization.strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _find_token(connection: HTTPConnection, token_in_query: bool) -> str:
    headers = connection.headers.getlist("authorization")
    if len(headers) > 1:
        raise InvalidToken("Send one Authorization header, not several.")
    if headers:
        if token := token_of(headers[0]):
            return token
    elif token_in_query and (token := connection.query_params.get("token", "")):
        return token
    raise MissingToken(
        'Send a secret key or a public access token in the header "Authorization: Bearer …".'
    )
