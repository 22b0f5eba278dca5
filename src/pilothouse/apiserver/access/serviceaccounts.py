"""Tokens of service accounts: the bound ones that TokenRequest gives, and the lasting ones kept in secrets."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from pilothouse.apiserver.access.rules import quoted
from pilothouse.apiserver.access.signing import KeyRing, unverified
from pilothouse.apiserver.access.tokens import Dependency, TokenAnswer, TokenError, intersection, secret_value
from pilothouse.apiserver.access.users import (
    CREDENTIAL_ID,
    NODE_NAME,
    NODE_UID,
    POD_NAME,
    POD_UID,
    service_account_groups,
    service_account_username,
    split_service_account,
)
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Object, View
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.kinds import times

__all__ = ["LEEWAY", "LEGACY_ISSUER", "SECRET_TYPE", "ServiceAccountTokens"]

LEGACY_ISSUER: Final = "kubernetes/serviceaccount"
SECRET_TYPE: Final = "kubernetes.io/service-account-token"  # noqa: S105  # a type of secrets
LEEWAY: Final = 60.0
"""Seconds for which clocks may differ: a token lives on so long after its end, or that of what it is bound to."""
_INVALIDATED: Final = "service account token has been invalidated"
_LEGACY: Final = "kubernetes.io/serviceaccount/"
_INVALID_SINCE: Final = "kubernetes.io/legacy-token-invalid-since"

_FARTHEST: Final = 1e15
"""Seconds of the epoch of the last moment that counts."""


class ServiceAccountTokens:
    """Signs tokens for service accounts and tells whose they are, as long as what they are bound to exists.

    issuers: the first is written into new tokens, all are accepted. api_audiences: whom tokens are for where nobody
    says otherwise; the first issuer if empty.
    """

    def __init__(  # what a token is made of, most with a default
        self,
        view: View,
        ring: KeyRing,
        issuers: Sequence[str],
        *,
        api_audiences: Sequence[str] = (),
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        self._view = view
        self._ring = ring
        self._issuers = tuple(issuers)
        self.api_audiences: Final = tuple(api_audiences) or self._issuers[:1]
        self._clock = clock or SystemClock()
        self._ids = ids or SystemIds()

    @property
    def ring(self) -> KeyRing:
        """The keys."""
        return self._ring

    def replace_keys(self, ring: KeyRing) -> None:
        """Sign and check with other keys from now on; who remembers answers has to forget them."""
        self._ring = ring

    def sign(
        self,
        account: Object,
        audiences: Sequence[str],
        seconds: int,
        bound: Mapping[str, Object] | None = None,
        *,
        warn_after: int = 0,
    ) -> tuple[str, str]:
        """Return a token for a service account and its id.

        seconds: how long it lives. bound: objects without which it is worth nothing, by `pod`, `node` or `secret`.
        warn_after: seconds after which its use is noted as stale, 0 for never.
        """
        now = int(self._clock.now().timestamp())
        metadata, jti = account["metadata"], self._ids.uuid()
        private: dict[str, Any] = {"namespace": metadata["namespace"]}
        for kind in ("node", "pod", "secret"):
            if bound and kind in bound:
                private[kind] = _reference(bound[kind])
        private["serviceaccount"] = _reference(account)
        if warn_after:
            private["warnafter"] = now + warn_after
        claims = {
            "aud": list(audiences),
            "exp": now + seconds,
            "iat": now,
            "iss": self._issuers[0],
            "jti": jti,
            "kubernetes.io": private,
            "nbf": now,
            "sub": service_account_username(metadata["namespace"], metadata["name"]),
        }
        return self._ring.sign(claims), jti

    def sign_secret(self, account: Object, secret: Object) -> str:
        """Return the token that a secret of type `SECRET_TYPE` keeps: without end, dead with the secret."""
        metadata = account["metadata"]
        claims = {
            "iss": LEGACY_ISSUER,
            f"{_LEGACY}namespace": metadata["namespace"],
            f"{_LEGACY}secret.name": secret["metadata"]["name"],
            f"{_LEGACY}service-account.name": metadata["name"],
            f"{_LEGACY}service-account.uid": metadata["uid"],
            "sub": service_account_username(metadata["namespace"], metadata["name"]),
        }
        return self._ring.sign(claims)

    def filled_secret(self, account: Object, secret: Object, authorities: bytes) -> Object | None:
        """Return a secret of type `SECRET_TYPE` with token, CA and namespace; None if it lacks nothing.

        authorities: the cluster's CA, PEM.
        """
        data, metadata = dict(secret.get("data") or {}), secret["metadata"]
        annotations = dict(metadata.get("annotations") or {})
        wanted = {"ca.crt": authorities, "namespace": account["metadata"]["namespace"].encode()}
        data.update({name: base64.b64encode(value).decode() for name, value in wanted.items()})
        if not data.get("token"):
            data["token"] = base64.b64encode(self.sign_secret(account, secret).encode()).decode()
        annotations["kubernetes.io/service-account.uid"] = account["metadata"]["uid"]
        if data == (secret.get("data") or {}) and annotations == (metadata.get("annotations") or {}):
            return None
        return {**secret, "metadata": {**metadata, "annotations": annotations}, "data": data}

    def authenticate_token(self, token: str, audiences: tuple[str, ...] = ()) -> TokenAnswer | None:
        """Return whose token it is, None for other sorts of tokens. Raises TokenError."""
        told = unverified(token)
        issuer = told.get("iss") if told else None
        legacy = issuer == LEGACY_ISSUER
        if not isinstance(issuer, str) or not (legacy or issuer in self._issuers):
            return None
        try:
            claims = self._ring.verify(token)
        except ValueError as error:
            raise TokenError(str(error)) from error
        held = _audiences(claims.get("aud")) or self.api_audiences
        wanted = audiences or self.api_audiences
        shared = intersection(wanted, held)
        if not shared:
            raise TokenError(f"token audiences {quoted(held)} is invalid for the target audiences {quoted(wanted)}")
        return self._legacy(token, claims, shared) if legacy else self._bound(claims, shared)

    def _bound(self, claims: Mapping[str, Any], shared: tuple[str, ...]) -> TokenAnswer:
        now = self._clock.now().timestamp()
        expires, private = _seconds(claims.get("exp")), claims.get("kubernetes.io")
        if expires is not None and now - LEEWAY > expires:
            raise TokenError("service account token has expired")
        if now + LEEWAY < (_seconds(claims.get("nbf")) or 0) or now + LEEWAY < (_seconds(claims.get("iat")) or 0):
            raise TokenError("service account token is not valid yet")
        if not isinstance(private, dict):
            raise TokenError("service account token claims could not be validated due to unexpected private claim")
        namespace, account = _text(private, "namespace"), _named(private, "serviceaccount") or ("", "")
        depends: list[Dependency] = []
        ends = [] if expires is None else [expires + LEEWAY]
        self._check_account(namespace, account, depends, ends)
        extra = self._check_bound(namespace, private, depends, ends)
        jti = claims.get("jti")
        if isinstance(jti, str) and jti:
            extra[CREDENTIAL_ID] = (f"JTI={jti}",)
        return TokenAnswer(_user(namespace, account, extra), shared, tuple(depends), min(ends, default=None))

    def _check_bound(
        self, namespace: str, private: Mapping[str, Any], depends: list[Dependency], ends: list[float]
    ) -> dict[str, tuple[str, ...]]:
        extra: dict[str, tuple[str, ...]] = {}
        if secret := _named(private, "secret"):
            self._check(
                "secrets", namespace, secret, "secret UID (%s) does not match service account secret ref", depends, ends
            )
        node = _named(private, "node")
        if pod := _named(private, "pod"):
            self._check("pods", namespace, pod, "pod UID (%s) does not match service account pod ref", depends, ends)
            extra[POD_NAME], extra[POD_UID] = (pod[0],), (pod[1],)
        elif node:
            self._check("nodes", "", node, "node UID (%s) does not match service account node ref", depends, ends)
        if node:
            extra[NODE_NAME] = (node[0],)
            if node[1]:
                extra[NODE_UID] = (node[1],)
        return extra

    def _check_account(
        self, namespace: str, account: tuple[str, str], depends: list[Dependency], ends: list[float]
    ) -> None:
        name, uid = account
        found = self._view.get("serviceaccounts", namespace, name)
        if found is None:
            raise TokenError(f'serviceaccounts "{name}" not found')
        end = _end(found)
        if end is not None and end < self._clock.now().timestamp():
            raise TokenError(f"service account {namespace}/{name} has been deleted")
        real = found["metadata"].get("uid") or ""
        if real != uid:
            raise TokenError(f"service account UID ({real}) does not match claim ({uid})")
        depends.append(("serviceaccounts", namespace, name))
        ends += [] if end is None else [end]

    def _check(  # the three kinds differ in words only
        self,
        resource: str,
        namespace: str,
        reference: tuple[str, str],
        mismatch: str,
        depends: list[Dependency],
        ends: list[float],
    ) -> None:
        name, uid = reference
        found = self._view.get(resource, namespace, name)
        end = None if found is None else _end(found)
        if found is None or (end is not None and end < self._clock.now().timestamp()):
            raise TokenError(_INVALIDATED)
        real = found["metadata"].get("uid") or ""
        if real != uid:
            raise TokenError(f"{mismatch % real} claim ({uid})")
        depends.append((resource, namespace, name))
        ends += [] if end is None else [end]

    def _legacy(self, token: str, claims: Mapping[str, Any], shared: tuple[str, ...]) -> TokenAnswer:
        subject, namespace = _text(claims, "sub"), _text(claims, f"{_LEGACY}namespace")
        secret_name = _text(claims, f"{_LEGACY}secret.name")
        account = (_text(claims, f"{_LEGACY}service-account.name"), _text(claims, f"{_LEGACY}service-account.uid"))
        told = {"sub": subject, "namespace": namespace, "secretName": secret_name}
        for claim, value in {**told, "serviceAccountName": account[0], "serviceAccountUID": account[1]}.items():
            if not value:
                raise TokenError(f"{claim} claim is missing")
        if split_service_account(subject) != (namespace, account[0]):
            raise TokenError("sub claim is invalid")
        secret = self._view.get("secrets", namespace, secret_name)
        if secret is None or secret["metadata"].get("deletionTimestamp"):
            raise TokenError("token has been invalidated")
        if not hmac.compare_digest(secret_value(secret, "token").encode(), token.encode()):
            raise TokenError("token does not match server's copy")
        self._check_legacy_account(namespace, account)
        if (secret["metadata"].get("labels") or {}).get(_INVALID_SINCE):
            raise TokenError(_marked_invalid(namespace, secret_name, account[0]))
        depends: list[Dependency] = [("secrets", namespace, secret_name), ("serviceaccounts", namespace, account[0])]
        return TokenAnswer(_user(namespace, account, {}), shared, tuple(depends))

    def _check_legacy_account(self, namespace: str, account: tuple[str, str]) -> None:
        name, uid = account
        found = self._view.get("serviceaccounts", namespace, name)
        if found is None:
            raise TokenError(f'serviceaccounts "{name}" not found')
        if found["metadata"].get("deletionTimestamp"):
            raise TokenError(f"ServiceAccount {namespace}/{name} has been deleted")
        real = found["metadata"].get("uid") or ""
        if real != uid:
            raise TokenError(f"ServiceAccount UID ({real}) does not match claim ({uid})")

    def expiration(self, seconds: int) -> str:
        """Return the moment that lies so many seconds ahead, RFC 3339."""
        return times.format_seconds(self._clock.now() + timedelta(seconds=seconds))


def _marked_invalid(namespace: str, secret: str, account: str) -> str:
    return (
        f"the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. "
        "Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the "
        f"'{_INVALID_SINCE}' label from the secret to temporarily allow use of this token"
    )


def _user(namespace: str, account: tuple[str, str], extra: Mapping[str, tuple[str, ...]]) -> User:
    name, uid = account
    return User(service_account_username(namespace, name), uid, service_account_groups(namespace), extra)


def _reference(obj: Object) -> dict[str, str]:
    metadata = obj["metadata"]
    reference = {"name": metadata["name"], "uid": metadata.get("uid") or ""}
    return {field: value for field, value in reference.items() if value}


def _end(obj: Object) -> float | None:
    """Return from when on tokens are dead that are bound to an object; None while it is not being deleted."""
    deleted = obj["metadata"].get("deletionTimestamp")
    return times.parse(deleted).timestamp() + LEEWAY if deleted else None


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) else ""


def _named(claims: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """Return name and uid of an object that claims tell of; None where they tell of none."""
    value = claims.get(name)
    return (
        None if value is None else (_text(value, "name"), _text(value, "uid")) if isinstance(value, dict) else ("", "")
    )


def _seconds(value: Any) -> float | None:
    """Return a moment in seconds; what is none, or too far away to be told, counts as absent."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _FARTHEST:
        return None
    return float(value)


def _audiences(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
