"""Credentials: password hashes that go into the log, and the tokens that stand for a login.

Hashes are made before a command is proposed, so that replaying the log makes no random choice. Neither passwords
nor tokens appear in any `repr` or message.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["DUMMY_HASH", "SimpleTokens", "hash_password", "verify_password"]

_COST, _BLOCK, _LANES = 2**14, 8, 5
"""scrypt's parameters: 16 MiB and about a fifth of a second, as OWASP's password storage guide asks for."""

_MEMORY = 64 * 1024 * 1024
_SCHEME = b"scrypt"

DUMMY_HASH = b"scrypt$%d$%d$%d$AAAAAAAAAAAAAAAAAAAAAA==$" % (_COST, _BLOCK, _LANES) + base64.b64encode(bytes(32))
"""Matches no password and takes as long as a real one to refuse, so that timing does not tell which users exist."""


def hash_password(password: str, *, salt: bytes | None = None, cost: int = _COST) -> bytes:
    """Return `scrypt$N$r$p$salt$hash` (base64) of a password; slow on purpose: call it off the event loop."""
    salt = secrets.token_bytes(16) if salt is None else salt
    digest = _scrypt(password, salt, cost, _BLOCK, _LANES)
    numbers = b"%d$%d$%d" % (cost, _BLOCK, _LANES)
    return b"$".join((_SCHEME, numbers, base64.b64encode(salt), base64.b64encode(digest)))


def verify_password(password: str, password_hash: bytes) -> bool:
    """Whether a password has this hash; False for an empty or foreign hash. Slow on purpose, as `hash_password`."""
    try:
        scheme, cost, block, lanes, salt, digest = password_hash.split(b"$")
        expected = base64.b64decode(digest, validate=True)
        if scheme != _SCHEME:
            return False
        actual = _scrypt(password, base64.b64decode(salt, validate=True), int(cost), int(block), int(lanes))
    except ValueError:
        return False
    return hmac.compare_digest(actual, expected)


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    raw = password.encode("utf-8", "surrogateescape")
    return hashlib.scrypt(raw, salt=salt, n=cost, r=block, p=lanes, maxmem=_MEMORY, dklen=32)


class SimpleTokens:
    """Random tokens, each for one user, that end `ttl` seconds after their last use.

    At most `limit` are kept: beyond it the one that has not been used for the longest time ends early, and its
    client authenticates anew, as etcd's clients do when a token is refused. `clock` returns monotonic seconds and
    `randomness` that many random bytes.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        randomness: Callable[[int], bytes] = secrets.token_bytes,
        ttl: float = 300.0,
        limit: int = 10_000,
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit of {limit} tokens: it must be positive")
        self.evicted = 0
        self._clock = clock
        self._randomness = randomness
        self._ttl = ttl
        self._limit = limit
        # Digest of the token → user and end, least recently used first. A look-up by digest tells nothing by its time.
        self._tokens: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of tokens kept, those that have just ended included."""
        return len(self._tokens)

    def assign(self, username: str) -> str:
        """Return a new token for a user."""
        self._sweep()
        if len(self._tokens) >= self._limit:
            self._tokens.popitem(last=False)
            self.evicted += 1
        token = base64.urlsafe_b64encode(self._randomness(24)).decode()
        self._tokens[_digest(token)] = (username, self._clock() + self._ttl)
        return token

    def user(self, token: str) -> str | None:
        """Return whose token it is and start its time anew; None for an unknown or ended one."""
        digest = _digest(token)
        found = self._tokens.get(digest)
        if found is None:
            return None
        now = self._clock()
        if found[1] <= now:
            del self._tokens[digest]
            return None
        self._tokens[digest] = (found[0], now + self._ttl)
        self._tokens.move_to_end(digest)
        return found[0]

    def invalidate_user(self, username: str) -> None:
        """End all tokens of a user."""
        for digest in [digest for digest, (user, _) in self._tokens.items() if user == username]:
            del self._tokens[digest]

    def clear(self) -> None:
        """End all tokens."""
        self._tokens.clear()

    def _sweep(self) -> None:
        # Every use moves a token to the end with the same time to live, so the first ones end first.
        now = self._clock()
        while self._tokens:
            digest, (_, end) = next(iter(self._tokens.items()))
            if end > now:
                return
            del self._tokens[digest]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
