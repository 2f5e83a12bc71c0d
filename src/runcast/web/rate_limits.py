"""Rate limits of requests to /api: what a caller may still do, by buckets that gateways share."""

import asyncio
import logging
import math
from collections import Counter, OrderedDict

from runcast.auth.grant import Grant
from runcast.core.bucket import Allowance, Share
from runcast.core.limits import Limits
from runcast.core.rate import Rate
from runcast.errors import BackendError, RateLimited
from runcast.ports import Clock, RateLimiter

_PATIENCE_SECONDS = 1.0  # for a draw; without an answer the gateway counts alone
_ALONE_SECONDS = 1.0  # until it asks again

logger = logging.getLogger(__name__)


class _Account:
    """The share of one token or key, and the draw that is under way for it."""

    def __init__(self, rate: Rate) -> None:
        self.share = Share(rate)
        self.drawing: asyncio.Task[Allowance] | None = None


class RateLimits:
    """
    Counts the requests of each public token and each secret key.

    Tokens and keys are known by their hashes, and only those that were verified: nobody can fill
    the memory with guesses. When too many are known, those not used for longest are forgotten, and
    with them what the gateway held of their buckets.

    While the limiter does not answer, the gateway counts alone, so that nobody is refused for that.
    """

    def __init__(
        self, limiter: RateLimiter, *, clock: Clock, limits: Limits, max_accounts: int = 10_000
    ) -> None:
        self.refused: Counter[str] = Counter()
        self.failures = 0
        self._limiter = limiter
        self._clock = clock
        self._public_token_rate = limits.public_token_rate
        self._secret_key_rate = limits.secret_key_rate
        self._max_accounts = max_accounts
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._alone_until = -math.inf

    def of_strangers(self) -> Allowance | None:
        """Tell what a caller may do who is not known yet, and so has spent nothing."""
        rate = self._public_token_rate or self._secret_key_rate
        return None if rate is None else Allowance.untouched(rate, self._clock.now())

    async def spend(self, grant: Grant) -> Allowance | None:
        """Let a request pass or not, and count it if it does. None: there is no limit."""
        kind = "secret_key" if grant.is_secret_key else "public_token"
        rate = self._secret_key_rate if grant.is_secret_key else self._public_token_rate
        if rate is None:
            return None
        allowance = await self._spend(grant.token_hash, rate)
        if not allowance.allowed:
            self.refused[kind] += 1
        return allowance

    async def _spend(self, token_hash: str, rate: Rate) -> Allowance:
        account = self._account(token_hash, rate)
        while (allowance := account.share.take(self._clock.now())) is None:
            if account.drawing is not None:
                await asyncio.wait([account.drawing])
                continue
            account.drawing = asyncio.create_task(self._draw(account, token_hash))
            # The others wait for it too, should this caller go away.
            return await asyncio.shield(account.drawing)
        return allowance

    def _account(self, token_hash: str, rate: Rate) -> _Account:
        account = self._accounts.get(token_hash)
        if account is None:
            account = self._accounts[token_hash] = _Account(rate)
        self._accounts.move_to_end(token_hash)
        while len(self._accounts) > self._max_accounts:
            self._accounts.popitem(last=False)
        return account

    async def _draw(self, account: _Account, token_hash: str) -> Allowance:
        share = account.share
        try:
            if self._clock.now() < self._alone_until:
                return share.draw_alone(self._clock.now())
            async with asyncio.timeout(_PATIENCE_SECONDS):
                draw = await self._limiter.draw(
                    bytes.fromhex(token_hash), share.rate.share, share.rate
                )
            # By the time at which the answer is here, so that a wait that we announce is no shorter
            # than that of the bucket.
            return share.receive(draw, self._clock.now())
        except (BackendError, TimeoutError) as error:
            reason = str(error) or "no answer within a second"
            logger.warning("rate limits are counted by this gateway alone: %s", reason)
            self.failures += 1
            self._alone_until = self._clock.now() + _ALONE_SECONDS
            return share.draw_alone(self._clock.now())
        finally:
            account.drawing = None


def headers_of(allowance: Allowance | None) -> dict[str, str]:
    """Say in headers what is left."""
    if allowance is None:
        return {}
    return {
        "x-ratelimit-limit": str(allowance.limit),
        "x-ratelimit-remaining": str(allowance.remaining),
        # Rather a little late than early: who comes too early is refused again.
        "x-ratelimit-reset": str(math.ceil(allowance.reset_at * 1000 + 0.01)),
    }


def refusal(allowance: Allowance, now: float) -> RateLimited:
    """Tell who spent everything when to come again."""
    seconds = max(1, math.ceil(allowance.reset_at - now))
    return RateLimited(
        f"The {allowance.limit} requests of this token or key are used up; the next one is "
        f"allowed in {seconds} s.",
        seconds,
    )
