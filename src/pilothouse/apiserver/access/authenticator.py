"""Who asks: proxies' headers, client certificates and bearer tokens in Kubernetes' order, the good ones remembered."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pilothouse.apiserver.access.certificates import CertificateError, CertificateUsers
from pilothouse.apiserver.access.frontproxy import FrontProxy
from pilothouse.apiserver.access.tokens import Dependency, TokenAnswer, TokenAuthenticator, TokenError
from pilothouse.apiserver.access.users import with_authenticated
from pilothouse.apiserver.access.websockettoken import WebSocketTokenError, websocket_token
from pilothouse.apiserver.model import ANONYMOUS, Request, User
from pilothouse.apiserver.ports import View
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import Unauthorized

__all__ = ["RequestAuthenticator", "TokenVerdict", "without_credentials"]

_log = get_logger(__name__)

_LIFE: Final = 10.0
"""Seconds for which a good token is remembered at most."""
_MEMO: Final = 8_192
"""Tokens remembered at most; when there are more, all are forgotten and checked again."""
_LONGEST: Final = 64 * 1024
"""Characters of the longest token looked at."""
_WATCHED: Final = ("serviceaccounts", "secrets", "pods", "nodes")
_EXTRA_SPACE: Final = "the provided Authorization header contains extra space before the bearer token, and is ignored"
_INVALID: Final = "invalid bearer token"
_SECRET_HEADERS: Final = ("authorization", "impersonate-", "x-remote-", "cookie")


@dataclass(frozen=True, slots=True)
class TokenVerdict:
    """What a TokenReview tells: whom a token stands for, or what is wrong with it."""

    answer: TokenAnswer | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Remembered:
    user: User
    until: float
    """The monotonic second until which it may be believed."""
    depends: tuple[Dependency, ...]


class RequestAuthenticator:
    """Finds out who asks.

    certificates: those who may show client certificates; front_proxy: who may speak for others by headers; tokens:
    asked in order. anonymous: whether requests without credentials are `system:anonymous`, else they are refused.
    What a remembered token depends on is followed in the view, so that it dies with its service account, secret, pod
    or node; `forget` drops all, as after keys were changed.
    """

    def __init__(  # the ways to prove who one is, all optional
        self,
        view: View,
        *,
        certificates: CertificateUsers | None = None,
        front_proxy: FrontProxy | None = None,
        tokens: Sequence[TokenAuthenticator] = (),
        anonymous: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._certificates = certificates
        self._front_proxy = front_proxy
        self._tokens = tuple(tokens)
        self._anonymous = anonymous
        self._clock = clock or SystemClock()
        self._memo: dict[bytes, _Remembered] = {}
        self._dependents: dict[Dependency, set[bytes]] = {}
        self._stops = [view.notify(resource, self._listener(resource)) for resource in _WATCHED]

    def close(self) -> None:
        """Stop following what tokens depend on, and forget them."""
        for stop in self._stops:
            stop()
        self.forget()

    def forget(self) -> None:
        """Forget all tokens, so that each is checked again."""
        self._memo.clear()
        self._dependents.clear()

    def authenticate(self, request: Request) -> User | Awaitable[User | None] | None:
        """Return the user. Raises Unauthorized."""
        failed = False
        if request.peer is not None and request.peer.certificate is not None:
            user, failed = self._by_certificate(request, request.peer.certificate)
            if user is not None:
                return user
        headers = request.headers
        header = headers.get("authorization")
        if header is not None:
            token = _bearer(header, request)
            if token:
                return self._by_token(token)
        if "sec-websocket-protocol" in headers:
            try:
                token = websocket_token(request)
            except WebSocketTokenError as error:
                raise self._refused(str(error)) from None
            if token:
                return self._by_token(token)
        if failed or not self._anonymous:
            raise self._refused("no valid credentials")
        return ANONYMOUS

    def _by_certificate(self, request: Request, certificate: bytes) -> tuple[User | None, bool]:
        """Return whom a certificate proves, and whether it failed to prove anybody."""
        errors: list[str] = []
        if self._front_proxy is not None:
            try:
                user = self._front_proxy.user(request)
            except CertificateError as error:
                errors.append(str(error))
            else:
                if user is not None:
                    return with_authenticated(user), False
        if self._certificates is not None:
            try:
                user = self._certificates.user(certificate)
            except CertificateError as error:
                errors.append(str(error))
            else:
                if user is not None:
                    return user, False
        if errors:
            _log.debug("a client certificate was refused", errors=errors)
        return None, bool(errors)

    def _by_token(self, token: str) -> User | Awaitable[User | None]:
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = self._memo.get(digest)
        if found is not None:
            if self._clock.monotonic() < found.until:
                return found.user
            self._drop(digest)
        if len(token) > _LONGEST:
            raise self._refused("the token is too long")
        verdict = self.check_token(token)
        if inspect.isawaitable(verdict):
            return self._by_token_later(digest, verdict)
        return self._accepted(digest, verdict)

    async def _by_token_later(self, digest: bytes, verdict: Awaitable[TokenVerdict]) -> User:
        return self._accepted(digest, await verdict)

    def _accepted(self, digest: bytes, verdict: TokenVerdict) -> User:
        if verdict.answer is None:
            raise self._refused(verdict.error)
        user = with_authenticated(verdict.answer.user)
        life = _LIFE
        if verdict.answer.expires is not None:
            life = min(life, verdict.answer.expires - self._clock.now().timestamp())
        if life > 0:
            self._remember(digest, _Remembered(user, self._clock.monotonic() + life, verdict.answer.depends))
        return user

    def check_token(self, token: str, audiences: tuple[str, ...] = ()) -> TokenVerdict | Awaitable[TokenVerdict]:
        """Say whom a token stands for, as a TokenReview asks; audiences: empty for the API server's own."""
        errors: list[str] = []
        for position, authenticator in enumerate(self._tokens):
            try:
                answer = authenticator.authenticate_token(token, audiences)
            except TokenError as error:
                errors.append(str(error))
                continue
            if inspect.isawaitable(answer):
                return self._check_later(answer, self._tokens[position + 1 :], token, audiences, errors)
            if answer is not None:
                return TokenVerdict(answer)
        return TokenVerdict(None, _aggregate(errors))

    async def _check_later(  # where `check_token` had got to
        self,
        pending: Awaitable[TokenAnswer | None],
        rest: Sequence[TokenAuthenticator],
        token: str,
        audiences: tuple[str, ...],
        errors: list[str],
    ) -> TokenVerdict:
        following: Sequence[TokenAuthenticator | None] = (None, *rest)
        for authenticator in following:
            try:
                found = pending if authenticator is None else authenticator.authenticate_token(token, audiences)
                answer = await found if inspect.isawaitable(found) else found
            except TokenError as error:
                errors.append(str(error))
                continue
            if answer is not None:
                return TokenVerdict(answer)
        return TokenVerdict(None, _aggregate(errors))

    def _remember(self, digest: bytes, entry: _Remembered) -> None:
        if len(self._memo) >= _MEMO:
            self.forget()
        self._memo[digest] = entry
        for dependency in entry.depends:
            self._dependents.setdefault(dependency, set()).add(digest)

    def _drop(self, digest: bytes) -> None:
        entry = self._memo.pop(digest, None)
        for dependency in entry.depends if entry else ():
            holders = self._dependents.get(dependency)
            if holders is not None:
                holders.discard(digest)
                if not holders:
                    del self._dependents[dependency]

    def _listener(self, resource: str) -> Callable[[str, str], None]:
        dependents = self._dependents

        def changed(namespace: str, name: str) -> None:
            # Whatever changed: the token is checked again, which is cheaper than to look at each change.
            for digest in tuple(dependents.get((resource, namespace, name), ())):
                self._drop(digest)

        return changed

    @staticmethod
    def _refused(why: str) -> Unauthorized:
        _log.debug("a request was not authenticated", why=why)
        return Unauthorized("Unauthorized")


def _bearer(header: str, request: Request) -> str:
    """Return the token of an Authorization header, empty where it has none."""
    parts = header.strip().split(" ", 2)
    if len(parts) < 2 or parts[0].lower() != "bearer":
        return ""
    if not parts[1] and len(parts) == 3 and _EXTRA_SPACE not in request.warnings:
        request.warnings.append(_EXTRA_SPACE)
    return parts[1]


def _aggregate(errors: Sequence[str]) -> str:
    texts = list(dict.fromkeys(errors))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]" if texts else _INVALID


def without_credentials(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return headers fit for passing on to another server: without what proves who asks. Names in lower case."""
    return [(name, value) for name, value in headers if not name.startswith(_SECRET_HEADERS)]
