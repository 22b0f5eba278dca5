"""OpenID Connect: users whom another provider vouches for with its tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from pilothouse.apiserver.access.jwks import ALGORITHMS, Fetch, JwksError, ProviderKeys
from pilothouse.apiserver.access.rules import quoted
from pilothouse.apiserver.access.signing import unverified
from pilothouse.apiserver.access.tokens import TokenAnswer, TokenError, intersection
from pilothouse.apiserver.model import User
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.kinds.fielderrors import quote

__all__ = ["OidcError", "OidcSettings", "OidcTokens"]

_NOT_BEFORE_LEEWAY: Final = 300.0
"""Seconds by which a provider's clock may be ahead."""
_MOST_TRIED: Final = 10
"""Keys tried at most for a token that names none."""

_FARTHEST: Final = 1e15
"""Seconds of the epoch of the last moment that counts."""


class OidcError(Exception):
    """The settings of a provider cannot be used; the message names the field and the way out."""


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """Whom to believe and how to read users, as the options `--oidc-*` of kube-apiserver say it.

    issuer: `https` URL. client_ids: tokens have to be for one of them. username_prefix: None for the default, the
    issuer and `#` unless the claim is `email`; `-` for none. required_claims: claims that have to have these values.
    """

    issuer: str
    client_ids: Sequence[str]
    username_claim: str = "sub"
    username_prefix: str | None = None
    groups_claim: str = ""
    groups_prefix: str = ""
    required_claims: Mapping[str, str] = field(default_factory=dict)
    signing_algorithms: Sequence[str] = ("RS256",)

    def check(self) -> None:
        """Raise OidcError for what cannot work."""
        parts = urlsplit(self.issuer)
        if parts.scheme != "https" or not parts.netloc or parts.query or parts.fragment or parts.username:
            raise OidcError(f"issuer: {self.issuer!r} is no https URL without user, query and fragment")
        if not self.client_ids or not all(self.client_ids):
            raise OidcError("client_ids: is empty; give the client's id at the provider")
        if not self.username_claim:
            raise OidcError("username_claim: is empty; `sub` is what every provider has")
        for algorithm in self.signing_algorithms or ("",):
            if algorithm not in ALGORITHMS:
                raise OidcError(f"signing_algorithms: {algorithm!r} is not one of {', '.join(sorted(ALGORITHMS))}")

    @property
    def prefix(self) -> str:
        """What user names begin with."""
        if self.username_prefix is None:
            return "" if self.username_claim == "email" else f"{self.issuer}#"
        return "" if self.username_prefix == "-" else self.username_prefix


class OidcTokens:
    """Tells whose a provider's token is; at once once its keys are known."""

    def __init__(
        self,
        settings: OidcSettings,
        *,
        api_audiences: Sequence[str] = (),
        fetch: Fetch | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings.check()
        self._settings = settings
        self._clock = clock or SystemClock()
        self._keys = ProviderKeys(settings.issuer, fetch=fetch, clock=self._clock)
        self._api_audiences = tuple(api_audiences)

    def authenticate_token(
        self, token: str, audiences: tuple[str, ...] = ()
    ) -> TokenAnswer | Awaitable[TokenAnswer | None] | None:
        """Return whom the token stands for, None for tokens of other issuers. Raises TokenError."""
        told = unverified(token)
        if told is None or told.get("iss") != self._settings.issuer:
            return None
        kid, algorithm = self._header(token)
        keys = self._keys.find(kid, algorithm)
        if keys is None:
            return self._later(token, audiences, kid, algorithm)
        return self._answer(token, audiences, keys, algorithm)

    async def _later(self, token: str, audiences: tuple[str, ...], kid: str, algorithm: str) -> TokenAnswer | None:
        try:
            keys = await self._keys.fetch(kid, algorithm)
        except JwksError as error:
            raise TokenError("oidc: authenticator not initialized") from error
        return self._answer(token, audiences, keys, algorithm)

    def _header(self, token: str) -> tuple[str, str]:
        from jwt import PyJWTError, get_unverified_header  # noqa: PLC0415  # only who has a provider needs it

        try:
            header = get_unverified_header(token)
        except PyJWTError as error:
            raise TokenError("oidc: verify token: oidc: malformed jwt") from error
        algorithm = header.get("alg")
        if algorithm not in self._settings.signing_algorithms:
            raise TokenError(
                "oidc: verify token: oidc: id token signed with unsupported algorithm, "
                f"expected {quoted(self._settings.signing_algorithms)} got {quote(str(algorithm))}"
            )
        return header.get("kid") or "", str(algorithm)

    def _answer(
        self, token: str, audiences: tuple[str, ...], keys: Sequence[Any], algorithm: str
    ) -> TokenAnswer | None:
        claims = _verified(token, keys, algorithm)
        expires = self._check(claims)
        user = self._user(claims)
        shared = intersection(audiences or self._api_audiences, self._api_audiences)
        return TokenAnswer(user, shared, expires=expires) if shared or not audiences else None

    def _check(self, claims: Mapping[str, Any]) -> float:
        """Check issuer, audience and times; return when the token ends. Raises TokenError."""
        settings, now = self._settings, self._clock.now().timestamp()
        if claims.get("iss") != settings.issuer:
            raise TokenError("oidc: verify token: oidc: id token issued by a different provider")
        held = claims.get("aud")
        audience = [held] if isinstance(held, str) else held if isinstance(held, list) else []
        if not any(one in settings.client_ids for one in audience):
            wanted = quoted(sorted(settings.client_ids))
            raise TokenError(
                f"oidc: verify token: oidc: expected audience in {wanted} got {quoted(map(str, audience))}"
            )
        expires, starts = _number(claims.get("exp")), _number(claims.get("nbf"))
        if expires is None or expires < now:
            raise TokenError("oidc: verify token: oidc: token is expired")
        if starts is not None and starts > now + _NOT_BEFORE_LEEWAY:
            raise TokenError("oidc: verify token: oidc: current time before the nbf (not before) time")
        return expires

    def _user(self, claims: Mapping[str, Any]) -> User:
        settings = self._settings
        claim = settings.username_claim
        name = claims.get(claim)
        if not isinstance(name, str):
            why = "claim not present" if name is None else "is no text"
            raise TokenError(f"oidc: parse username claims {quote(claim)}: {why}")
        if claim == "email" and "email_verified" in claims and claims["email_verified"] is not True:
            raise TokenError("oidc: email not verified")
        groups = self._groups(claims)
        for required, value in settings.required_claims.items():
            if required not in claims:
                raise TokenError(f"oidc: required claim {required} not present in ID token")
            if claims[required] != value:
                raise TokenError(f"oidc: required claim {required} value does not match. want = {value}")
        return User(settings.prefix + name, groups=groups)

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        claim = self._settings.groups_claim
        found = claims.get(claim) if claim else None
        if found is None:
            return ()
        groups = [found] if isinstance(found, str) else found
        if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
            raise TokenError(f"oidc: parse groups claim {quote(claim)}: is neither text nor a list of texts")
        return tuple(self._settings.groups_prefix + group for group in groups)


def _verified(token: str, keys: Sequence[Any], algorithm: str) -> dict[str, Any]:
    from jwt import PyJWTError, api_jws  # noqa: PLC0415  # only who has a provider needs it

    for key in keys[:_MOST_TRIED]:
        try:
            payload = api_jws.decode(token, key, algorithms=[algorithm])
            return msgspec.json.decode(payload, type=dict[str, Any])
        except (PyJWTError, msgspec.MsgspecError, RecursionError):
            continue
    raise TokenError("oidc: verify token: failed to verify signature: failed to verify id token signature")


def _number(value: Any) -> float | None:
    """Return a moment in seconds; what is none, or too far away to be told, counts as absent."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _FARTHEST:
        return None
    return float(value)
