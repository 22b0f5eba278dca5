"""The public keys of an OpenID Connect provider: fetched when first needed, kept, and fetched anew for unknown ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger

__all__ = ["ALGORITHMS", "Fetch", "JwksError", "ProviderKeys", "https_fetch"]

_log = get_logger(__name__)

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]
"""Gets a document by its URL; raises OSError or ValueError where it cannot."""

ALGORITHMS: Final = frozenset(f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512))
"""Those that a provider may sign with: never an HMAC, never none."""
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_FEWEST_BITS: Final = 2048
_MOST_KEYS: Final = 100
_LARGEST: Final = 1 << 20
_LIFE: Final = 3600.0
"""Seconds after which keys are fetched anew, so that withdrawn ones go."""
_PAUSE: Final = 10.0
"""Seconds between fetches, so that tokens with invented key ids do not set off one each."""
_TIMEOUT: Final = 10.0


class JwksError(Exception):
    """The keys cannot be had; the message says why."""


@dataclass(frozen=True, slots=True)
class _ProviderKey:
    kid: str
    algorithms: frozenset[str]
    key: Any


class ProviderKeys:
    """Keeps the signing keys of one issuer.

    issuer: its URL, `https` only. fetch: how documents are had; by default over HTTPS with the system's authorities.
    """

    def __init__(self, issuer: str, *, fetch: Fetch | None = None, clock: Clock | None = None) -> None:
        self._issuer = issuer
        self._fetch = fetch or https_fetch()
        self._clock = clock or SystemClock()
        self._keys: tuple[_ProviderKey, ...] = ()
        self._fetched: float | None = None
        self._tried: float | None = None
        self._failure = ""
        self._pending: asyncio.Task[None] | None = None

    def find(self, kid: str, algorithm: str) -> list[Any] | None:
        """Return the keys a token may be signed with, None where they have to be fetched first."""
        if self._fetched is None or self._clock.monotonic() - self._fetched > _LIFE:
            return None
        return self._matching(kid, algorithm) or (None if self._may_fetch() else [])

    async def fetch(self, kid: str, algorithm: str) -> list[Any]:
        """Return the same after fetching the keys, all who wait at once sharing one fetch. Raises JwksError."""
        if self._pending is None and self._may_fetch():
            self._tried = self._clock.monotonic()
            self._pending = asyncio.create_task(self._refresh())
        if self._pending is not None:
            await asyncio.shield(self._pending)
        if self._fetched is None:
            raise JwksError(self._failure or "not fetched yet")
        return self._matching(kid, algorithm)

    def _may_fetch(self) -> bool:
        return self._tried is None or self._clock.monotonic() - self._tried >= _PAUSE

    def _matching(self, kid: str, algorithm: str) -> list[Any]:
        return [key.key for key in self._keys if algorithm in key.algorithms and (not kid or key.kid == kid)]

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                self._keys = await self._load()
            self._fetched = self._clock.monotonic()
            self._failure = ""
        except (OSError, ValueError, JwksError) as error:
            # keys that were good stay so until they are too old: a provider may be away for a while
            self._failure = str(error) or type(error).__name__
            _log.warning("keys of an OpenID provider cannot be fetched", issuer=self._issuer, error=self._failure)
            if self._fetched is not None and self._clock.monotonic() - self._fetched > _LIFE:
                self._fetched, self._keys = None, ()
        finally:
            self._pending = None

    async def _load(self) -> tuple[_ProviderKey, ...]:
        where = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        document = _decoded(await self._fetch(where), where)
        if document.get("issuer") != self._issuer:
            raise JwksError(f"{where}: is of issuer {document.get('issuer')!r}, not of {self._issuer!r}")
        uri = document.get("jwks_uri")
        if not isinstance(uri, str) or not uri.startswith("https://"):
            raise JwksError(f"{where}: jwks_uri is no https URL")
        keys = _decoded(await self._fetch(uri), uri).get("keys")
        if not isinstance(keys, list) or len(keys) > _MOST_KEYS:
            raise JwksError(f"{uri}: has no list of at most {_MOST_KEYS} keys")
        return _usable(keys)


def _decoded(body: bytes, where: str) -> dict[str, Any]:
    if len(body) > _LARGEST:
        raise JwksError(f"{where}: has more than {_LARGEST} bytes")
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise JwksError(f"{where}: is no JSON object") from error


def _usable(keys: Sequence[Any]) -> tuple[_ProviderKey, ...]:
    """Take the keys that can check signatures; those of kinds unknown here are somebody else's."""
    found = (_key(data) for data in keys if isinstance(data, dict) and data.get("use", "sig") == "sig")
    return tuple(key for key in found if key is not None)


def _key(data: dict[str, Any]) -> _ProviderKey | None:
    from jwt import PyJWK, PyJWTError  # noqa: PLC0415  # only who has a provider needs it

    if data.get("kty") == "RSA":
        algorithms = {name for name in ALGORITHMS if not name.startswith("ES")}
    elif data.get("kty") == "EC" and data.get("crv") in _CURVES:
        algorithms = {_CURVES[data["crv"]]}
    else:
        return None
    stated, kid = data.get("alg"), data.get("kid", "")
    if isinstance(stated, str):
        algorithms &= {stated}
    if not algorithms or not isinstance(kid, str) or "d" in data:
        return None
    try:
        key = PyJWK(data, algorithm=min(algorithms)).key
    except (PyJWTError, ValueError, TypeError):
        return None
    if data["kty"] == "RSA" and key.key_size < _FEWEST_BITS:
        return None
    return _ProviderKey(kid, frozenset(algorithms), key)


def https_fetch(ca: str | None = None) -> Fetch:
    """Return how documents are fetched over HTTPS; ca: a file of authorities (PEM), the system's by default."""

    async def fetch(url: str) -> bytes:
        import aiohttp  # noqa: PLC0415  # only who has a provider needs it

        from pilothouse.foundation.tls import client_context  # noqa: PLC0415

        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, ssl=client_context(ca=ca), allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise JwksError(f"{url}: answers {response.status}")
                return await response.content.read(_LARGEST + 1)
        except aiohttp.ClientError as error:
            raise JwksError(f"{url}: {error}") from error

    return fetch
