"""Clients stay where they were: what a cookie or a header of theirs says of it, sealed, and which endpoint that is.

A client carries all that is needed, so that any worker, a gateway that was started anew, and others with the same key
know it: which share of the rule, which endpoint of its backend, since when, and when it was seen last. It is encrypted
and authenticated (AES-SIV, RFC 5297): nobody learns addresses from it, chooses an endpoint, or makes a session last.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import os
import struct
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pilothouse.traffic.config import Stickiness
from pilothouse.traffic.plane.balancing import Balancer, EndpointState
from pilothouse.traffic.plane.http import Request
from pilothouse.traffic.routing import Counters, Share, Shares
from pilothouse.traffic.sessionkeys import KEY_BYTES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

__all__ = ["Session", "Sessions", "Token", "tag_of"]

_FORM: Final = struct.Struct("<B6s8sII")
_VERSION: Final = 1
_ANY: Final = bytes(8)
_SOON: Final = 60
"""Seconds by which clocks of gateways may differ."""


_OWN: Final = os.urandom(KEY_BYTES)
"""Where nobody has a key for us: good as long as the process is."""


class Token(NamedTuple):
    """What a client carries. endpoint: its tag, zeros for any; issued, seen: seconds since 1970."""

    share: bytes
    endpoint: bytes
    issued: int
    seen: int


@functools.lru_cache(maxsize=65_536)
def tag_of(address: str) -> bytes:
    """Return a short name of an endpoint (HOST:PORT)."""
    return hashlib.blake2b(address.encode(), digest_size=8).digest()


class Sessions:
    """Seals and opens tokens. keys: the first seals, each opens; none stands for one of this process alone.

    wall: seconds since 1970.
    """

    def __init__(self, keys: Sequence[bytes], wall: Callable[[], float]) -> None:
        self._keys = tuple(keys) or (_OWN,)
        self._wall = wall
        self._ciphers: list[AESSIV] = []

    @property
    def now(self) -> int:
        """Whole seconds since 1970."""
        return int(self._wall())

    def seal(self, token: Token) -> str:
        """Return what a client is given."""
        data = _FORM.pack(_VERSION, *token)
        return base64.urlsafe_b64encode(self._able()[0].encrypt(data, None)).decode()

    def open(self, text: str) -> Token | None:
        """Return what a client carries, None for what is not from us."""
        try:
            data = base64.urlsafe_b64decode(text)
        except (binascii.Error, ValueError):
            return None
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  # only where there are sessions

        for cipher in self._able():
            try:
                opened = cipher.decrypt(data, None)
            except (InvalidTag, ValueError):
                continue
            if len(opened) == _FORM.size and opened[0] == _VERSION:
                return Token(*_FORM.unpack(opened)[1:])
        return None

    def _able(self) -> list[AESSIV]:
        if not self._ciphers:
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: PLC0415  # as above

            self._ciphers = [
                AESSIV(hashlib.blake2b(key[:64], digest_size=64, person=b"pilothouse-sess").digest())
                for key in self._keys
            ]
        return self._ciphers

    def begin(
        self, sticky: Stickiness, request: Request, shares: Shares, counters: Counters
    ) -> tuple[Share | None, Session | None]:
        """Return the share of backends that a request goes to, and what is to be known of its client later."""
        told = _told(sticky, request)
        if sticky.type == "Header":
            share = shares.of_hash(told) if told else shares.next(counters)
            return share, Session(self, sticky, None, told) if told and sticky.is_endpoint else None
        token = self.open(told) if told else None
        if token is not None and self._is_past(sticky, token):
            token = None
        share = shares.of_token(token.share.hex(), even_without_weight=sticky.keeps) if token is not None else None
        if share is None:
            token, share = None, shares.next(counters)
        return share, None if share is None else Session(self, sticky, token, share.token)

    def _is_past(self, sticky: Stickiness, token: Token) -> bool:
        now = self.now
        if token.issued > now + _SOON or token.seen > now + _SOON:
            return True
        return bool(
            (sticky.seconds and now - token.issued >= sticky.seconds)
            or (sticky.idle_seconds and now - token.seen >= sticky.idle_seconds)
        )


class Session:
    """One request's client. token: what it carried, where that holds. value: of its share, or what is hashed."""

    __slots__ = ("_sessions", "_sticky", "_token", "_value")

    def __init__(self, sessions: Sessions, sticky: Stickiness, token: Token | None, value: str) -> None:
        self._sessions, self._sticky, self._token, self._value = sessions, sticky, token, value

    def pick(self, balancer: Balancer, now: float, tried: Collection[EndpointState]) -> EndpointState | None:
        """Return the client's endpoint if it may be used, else any that fits.

        One that drains goes on with its clients; one that is gone, unhealthy or left out for a while does not.
        """
        if self._sticky.type == "Header":
            return _by_hash(balancer, now, tried, self._value)
        token = self._token
        if token is not None and self._sticky.is_endpoint:
            state = balancer.tagged(tag_of).get(token.endpoint)
            if state is not None and state not in tried and balancer.may_keep(state, now):
                return state
        return balancer.pick(now, tried)

    def told(self, address: str, *, is_secure: bool) -> tuple[bytes, bytes] | None:
        """Return the field that the answer has to have, None where the client knows all.

        address: of the endpoint that answered. is_secure: whether the client came by TLS.
        """
        sticky, token, now = self._sticky, self._token, self._sessions.now
        if sticky.type == "Header":
            return None
        endpoint = tag_of(address) if sticky.is_endpoint else _ANY
        if token is not None and token.endpoint == endpoint and not (sticky.idle_seconds and now > token.seen):
            return None
        issued = token.issued if token is not None else now
        text = self._sessions.seal(Token(bytes.fromhex(self._value), endpoint, issued, now))
        if sticky.type == "Token":
            return sticky.name.lower().encode(), text.encode()
        age = f"; Max-Age={sticky.seconds - (now - issued)}" if sticky.seconds and not sticky.is_session else ""
        secure = "; Secure" if is_secure else ""
        return b"set-cookie", f"{sticky.name}={text}; Path=/{age}; HttpOnly{secure}; SameSite=Lax".encode()


def _by_hash(balancer: Balancer, now: float, tried: Collection[EndpointState], value: str) -> EndpointState | None:
    """Return the same endpoint for a value as long as it fits; when one comes or goes, only its own clients move."""
    fit = balancer.fit(now, tried)
    data = value.encode("utf-8", "surrogateescape")

    def rank(state: EndpointState) -> Any:
        return hashlib.blake2b(data, digest_size=8, key=tag_of(state.address)).digest()

    return max(fit, key=rank) if fit else None


def _told(sticky: Stickiness, request: Request) -> str:
    """Return what a request says of where it was before, empty for nothing."""
    if sticky.type != "Cookie":
        return request.header(sticky.name.lower()) or ""
    wanted = sticky.name.encode()
    for name, value in request.fields:
        if name == b"cookie":
            for pair in value.split(b";"):
                key, _, token = pair.strip().partition(b"=")
                if key == wanted:
                    return token.decode("latin-1")
    return ""
