"""A request's way through the server: who asks, may they, is there room, and what comes back of it.

The order is kube-apiserver's: authentication, audit, impersonation, load protection, authorization, the verb. What
needs no waiting is answered at once, without a task; the first step that has to wait moves the request to a coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pilothouse.apiserver import paths
from pilothouse.apiserver.access.forbidden import forbidden_for
from pilothouse.apiserver.access.impersonation import impersonated, wanted_user
from pilothouse.apiserver.audit import Auditor, AuditRecord
from pilothouse.apiserver.compression import compressed, wants_gzip
from pilothouse.apiserver.flow import FlowControl, Rejected, Ticket
from pilothouse.apiserver.model import (
    Answer,
    Request,
    RequestInfo,
    Response,
    Sink,
    StreamingResponse,
    UpgradeResponse,
    User,
    refusal,
)
from pilothouse.apiserver.ports import Attributes, Authenticator, Authorizer
from pilothouse.apiserver.requestmetrics import RequestMetrics
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, BadRequest, Timeout, Unauthorized, generic, internal_error

__all__ = ["Pipeline"]

_log = get_logger(__name__)

_COMMON = (("Cache-Control", "no-cache, private"),)
_SECONDS = 60.0
_LONG_RUNNING = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_PARAMETERS = 1000
_ALL_WARNINGS, _ONE_WARNING = 4096, 256
"""Characters of all warnings of an answer, and of one where they are more, as kube-apiserver has it."""
_DOTS = frozenset({".", ".."})


class Pipeline:
    """Answers all requests, whoever carries them. `answer` does what is left once all agree that it may be done."""

    def __init__(
        self,
        authenticator: Authenticator,
        authorizer: Authorizer,
        flow: FlowControl,
        auditor: Auditor,
        metrics: RequestMetrics,
        clock: Clock,
        answer: Callable[[Request, RequestInfo], Answer | Awaitable[Answer]],
    ) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._flow = flow
        self._auditor = auditor
        self._metrics = metrics
        self._clock = clock
        self._answer = answer
        self._common: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}
        self.seconds = _SECONDS
        """What a request may take that is no watch or stream."""

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request. The `Handler` of the transports."""
        began = self._clock.monotonic()
        info = request.info = paths.parse(request.method, request.path, request.query_text)
        user = request.user
        record: AuditRecord | None = None
        ticket: Ticket | None = None
        try:
            if user is None:
                found = self._authenticator.authenticate(request)
                if found is not None and not isinstance(found, User):
                    return self._slowly(request, info, found, began)
                user = _somebody(found)
            request.user = user
            record = self._auditor.begin(request)
            user = request.user = self._acting(request, info, user)
            self._check(request, info)
            seat = self._flow.admit(user, info)
            if not isinstance(seat, Ticket):
                return self._queued(request, info, seat, record, began)
            ticket = seat
            answer = self._authorized(request, info, user)
            if not isinstance(answer, Response):
                if isinstance(answer, StreamingResponse | UpgradeResponse):
                    return self._finished(request, info, answer, ticket, record, began)
                return self._awaited(request, info, answer, ticket, record, began)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is answered
            answer = self._refused(request, error, record)
        return self._finished(request, info, answer, ticket, record, began)

    def _acting(self, request: Request, info: RequestInfo, user: User) -> User:
        """Return as whom the request is done: who asks, or whom they may speak for."""
        for name in request.headers:
            if name.startswith("impersonate-"):
                break
        else:
            return user
        wanted = wanted_user(request)
        if wanted is None:
            return user
        request.impersonator = user
        return impersonated(wanted, _attributes(user, info), self._authorizer)

    def _check(self, request: Request, info: RequestInfo) -> None:
        """Refuse what no part of the server should have to think of."""
        if "/." in info.path and not _DOTS.isdisjoint(info.path.split("/")):
            raise generic(_NOT_FOUND)
        if request.query_text.count("&") >= _PARAMETERS:
            raise BadRequest(f"the query has more than {_PARAMETERS} parameters")

    def _authorized(self, request: Request, info: RequestInfo, user: User) -> Answer | Awaitable[Answer]:
        attributes = _attributes(user, info)
        decision = self._authorizer.authorize(attributes)
        if not decision.allowed:
            request.annotations["authorization.k8s.io/decision"] = "forbid"
            request.annotations["authorization.k8s.io/reason"] = decision.reason
            raise forbidden_for(attributes, decision)
        if decision.reason:
            request.annotations["authorization.k8s.io/decision"] = "allow"
            request.annotations["authorization.k8s.io/reason"] = decision.reason
        return self._answer(request, info)

    # What has to wait

    async def _slowly(self, request: Request, info: RequestInfo, found: Awaitable[User | None], began: float) -> Answer:
        try:
            user = _somebody(await found)
        except Exception as error:  # noqa: BLE001
            return self._finished(request, info, self._refused(request, error, None), None, None, began)
        request.user = user
        answer = self.handle(request)
        return await answer if isinstance(answer, Awaitable) else answer

    async def _queued(
        self, request: Request, info: RequestInfo, seat: Awaitable[Ticket], record: AuditRecord | None, began: float
    ) -> Answer:
        ticket: Ticket | None = None
        try:
            ticket = await seat
            answer = self._authorized(request, info, request.user)  # type: ignore[arg-type]  # set by now
        except asyncio.CancelledError:
            self._abandoned(ticket, record)
            raise
        except Exception as error:  # noqa: BLE001
            return self._finished(request, info, self._refused(request, error, record), ticket, record, began)
        if isinstance(answer, Awaitable):
            return await self._awaited(request, info, answer, ticket, record, began)
        return self._finished(request, info, answer, ticket, record, began)

    async def _awaited(
        self,
        request: Request,
        info: RequestInfo,
        coming: Awaitable[Answer],
        ticket: Ticket,
        record: AuditRecord | None,
        began: float,
    ) -> Answer:
        try:
            if info.verb == "watch" or info.subresource in _LONG_RUNNING:
                answer = await coming
            else:
                answer = await self._in_time(coming)
            if isinstance(answer, Response | StreamingResponse) and wants_gzip(request):
                answer = await compressed(answer)
        except asyncio.CancelledError:
            self._abandoned(ticket, record)
            raise
        except Exception as error:  # noqa: BLE001
            answer = self._refused(request, error, record)
        return self._finished(request, info, answer, ticket, record, began)

    def _abandoned(self, ticket: Ticket | None, record: AuditRecord | None) -> None:
        """Let go of a request whose peer has gone; what it did may be done all the same, so it is told."""
        if ticket is not None:
            ticket.release()
        if record is not None:
            record.closed()

    async def _in_time(self, coming: Awaitable[Answer]) -> Answer:
        try:
            async with asyncio.timeout(self.seconds):
                return await coming
        except TimeoutError:
            raise Timeout("request did not complete within the allotted timeout") from None

    # What comes back

    def _refused(self, request: Request, error: Exception, record: AuditRecord | None) -> Response:
        if isinstance(error, Rejected):
            return error.response()
        if isinstance(error, Unauthorized):
            self._auditor.unauthenticated(request)
            return refusal(Unauthorized("Unauthorized"))
        if isinstance(error, ApiStatus):
            return refusal(error)
        _log.error("a request failed", method=request.method, path=request.path, exc_info=error)
        if record is not None:
            record.panic(error)
        return refusal(internal_error(f"{type(error).__name__}: {error}"))

    def _finished(
        self,
        request: Request,
        info: RequestInfo,
        answer: Answer,
        ticket: Ticket | None,
        record: AuditRecord | None,
        began: float,
    ) -> Answer:
        headers = answer.headers
        if ticket is not None:
            ticket.release()
            common = self._common.get(ticket.headers)
            if common is None:
                common = self._common[ticket.headers] = _COMMON + ticket.headers
            answer.headers = (*common, *headers) if headers else common
        else:
            answer.headers = (*_COMMON, *headers)
        if request.warnings:
            answer.headers = (*answer.headers, *_warnings(request.warnings))
        status = answer.status if not isinstance(answer, UpgradeResponse) else 101
        self._metrics.observe(info, status, self._clock.monotonic() - began)
        if record is not None:
            answer = self._audited(answer, record, info)
        return answer

    def _audited(self, answer: Answer, record: AuditRecord, info: RequestInfo) -> Answer:
        if isinstance(answer, Response):
            body = answer.body if record.wants_bodies else None
            record.response(answer.status, b"".join(body) if body is not None and not isinstance(body, bytes) else body)
            record.closed()
            return answer
        if isinstance(answer, UpgradeResponse):
            record.started(101)
            record.closed(long_running=True)
            return answer
        run = answer.run
        record.started(answer.status)

        async def audited(sink: Sink) -> None:
            try:
                await run(sink)
            finally:
                record.response(answer.status)
                record.closed(long_running=info.verb == "watch")

        answer.run = audited
        return answer


def _attributes(user: User, info: RequestInfo) -> Attributes:
    return Attributes(
        user,
        info.verb,
        info.is_resource,
        info.group,
        info.version,
        info.resource,
        info.subresource,
        info.namespace,
        info.name,
        info.path,
        info.field_selector,
    )


def _somebody(user: User | None) -> User:
    if user is None:
        raise generic(_UNAUTHORIZED)
    return user


def _warnings(texts: list[str]) -> list[tuple[str, str]]:
    """Return the headers of warnings, each once; where they are long, each is cut, and those beyond are left out."""
    lines = list(dict.fromkeys(texts))
    if sum(map(len, lines)) > _ALL_WARNINGS:
        lines = [line[:_ONE_WARNING] for line in lines]
    found, left = [], _ALL_WARNINGS
    for line in lines:
        left -= len(line)
        if left < 0:
            break
        found.append(("Warning", _warning(line)))
    return found


def _warning(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'
