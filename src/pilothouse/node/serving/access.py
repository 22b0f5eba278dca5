"""Who may use a node's API: client certificates, tokens that the API server knows, rights that it grants.

The rights are those on `nodes/proxy`, `nodes/log`, `nodes/stats`, `nodes/metrics`, as a kubelet asks for them.
"""

from __future__ import annotations

import hashlib
from typing import Final

from pilothouse.apiserver.access.certificates import CertificateError, CertificateUsers
from pilothouse.apiserver.model import Request, User
from pilothouse.client import Client, ClientError
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs.authentication import TokenReview, TokenReviewSpec
from pilothouse.kinds.structs.authorization import ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec

__all__ = ["Access", "Refused"]

_log = get_logger(__name__)
_ALLOWED_SECONDS: Final = 300.0
_DENIED_SECONDS: Final = 30.0
_TOKEN_SECONDS: Final = 120.0
_MOST: Final = 4_096
_VERBS: Final = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_FINE: Final = {"pods": "pods", "runningpods": "pods", "healthz": "healthz", "configz": "configz"}


class Refused(Exception):
    """Somebody may not do what is asked; `code` is the answer's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Access:
    """Asks the API server about tokens and rights, and remembers its answers for a while.

    authorities: of client certificates, PEM; None trusts none.
    """

    def __init__(
        self, client: Client, node: str, *, authorities: bytes | None = None, clock: Clock | None = None
    ) -> None:
        self._client = client
        self._node = node
        self._clock = clock or SystemClock()
        self._certificates = CertificateUsers(authorities, clock=self._clock) if authorities else None
        self._tokens: dict[bytes, tuple[float, User | None]] = {}
        self._rights: dict[tuple[str, tuple[str, ...], str, str], tuple[float, bool]] = {}

    async def check(self, request: Request) -> User:
        """Return who asks, if that may be answered. Raises `Refused`."""
        user = await self._user(request)
        if user is None:
            raise Refused(401, "Unauthorized")
        verb = _VERBS.get(request.method, "")
        subresources = _subresources(request.path)
        for subresource in subresources:
            if await self._may(user, verb, subresource):
                return user
        shown = ", ".join(subresources)
        raise Refused(403, f"Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{shown}])")

    async def _user(self, request: Request) -> User | None:
        shown = request.peer.certificate if request.peer is not None else None
        if shown is not None and self._certificates is not None:
            try:
                return self._certificates.user(shown)
            except CertificateError as error:
                _log.info("a client certificate is not good", reason=str(error))
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            return None
        return await self._of_token(token.strip())

    async def _of_token(self, token: str) -> User | None:
        key = hashlib.sha256(token.encode()).digest()
        now = self._clock.monotonic()
        known = self._tokens.get(key)
        if known is not None and known[0] > now:
            return known[1]
        review = TokenReview(spec=TokenReviewSpec(token=token))
        try:
            status = (await self._client.create(review)).status
        except (ApiStatus, ClientError, OSError) as error:
            _log.warning("a token could not be reviewed", reason=str(error))
            raise Refused(500, "Internal Error") from error
        user = None
        if status.authenticated:
            extra = {name: tuple(values) for name, values in status.user.extra.items()}
            user = User(status.user.username, status.user.uid, tuple(status.user.groups), extra)
        _remember(self._tokens, key, (now + _TOKEN_SECONDS, user))
        return user

    async def _may(self, user: User, verb: str, subresource: str) -> bool:
        if "system:masters" in user.groups:
            return True
        key = (user.name, user.groups, verb, subresource)
        now = self._clock.monotonic()
        known = self._rights.get(key)
        if known is not None and known[0] > now:
            return known[1]
        attributes = ResourceAttributes(
            verb=verb, version="v1", resource="nodes", subresource=subresource, name=self._node
        )
        spec = SubjectAccessReviewSpec(
            resource_attributes=attributes, user=user.name, uid=user.uid, groups=user.groups, extra=dict(user.extra)
        )
        try:
            allowed = bool((await self._client.create(SubjectAccessReview(spec=spec))).status.allowed)
        except (ApiStatus, ClientError, OSError) as error:
            _log.warning("rights could not be reviewed", user=user.name, reason=str(error))
            raise Refused(500, "Internal Error") from error
        _remember(self._rights, key, (now + (_ALLOWED_SECONDS if allowed else _DENIED_SECONDS), allowed))
        return allowed


def _remember(memo: dict, key: object, value: object) -> None:  # type: ignore[type-arg]
    if len(memo) >= _MOST:
        memo.clear()
    memo[key] = value


def _subresources(path: str) -> tuple[str, ...]:
    """Return the subresources of nodes of which one is enough, the narrow one first."""
    top = path.strip("/").partition("/")[0]
    if top == "stats":
        return ("stats",)
    if top == "metrics":
        return ("metrics",)
    if top == "logs":
        return ("log",)
    if top == "spec":
        return ("spec",)
    return (_FINE[top], "proxy") if top in _FINE else ("proxy",)
