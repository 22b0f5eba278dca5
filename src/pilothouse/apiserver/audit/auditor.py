"""Follows each request through its stages and hands the events to a sink."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any, Final

from pilothouse.apiserver.audit.event import Body, Event, EventSink, status_of
from pilothouse.apiserver.audit.policy import AuditLevel, AuditPolicy, Config
from pilothouse.apiserver.model import Request, RequestInfo
from pilothouse.apiserver.ports import Object
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.kinds.status import internal_error

__all__ = ["AUDIT_ID", "AuditLevel", "AuditRecord", "Auditor", "source_ips"]

AUDIT_ID: Final = "Audit-Id"
"""The header in which a request's id comes and goes."""

_LEVEL_NAMES: Final = {1: "Metadata", 2: "Request", 3: "RequestResponse"}
_AGENT_LENGTH = 1024
_ID_LENGTH = 256
_IP_LENGTH = 45
_NOWHERE = RequestInfo(False, "", "")


class Auditor:
    """Begins a record for each request that the policy wants to be told of.

    policy: None tells of nothing. Events that the sink does not take are counted; where that is the first of its
    request and `strict`, the request is refused.
    """

    def __init__(
        self,
        policy: AuditPolicy | None,
        sink: EventSink,
        clock: Clock,
        ids: Ids,
        *,
        strict: bool = False,
        metrics: Metrics = PROGRAM,
    ) -> None:
        self._policy = policy
        self._sink = sink
        self._clock = clock
        self._ids = ids
        self._strict = strict
        self._events = metrics.counter("pilothouse_apiserver_audit_events_total", "Audit events made.")
        self._dropped = metrics.counter("pilothouse_apiserver_audit_dropped_events_total", "Audit events lost.")

    def audit_id(self, request: Request) -> str:
        """Return the id that the caller gave the request, or a new one; it goes into the answer's `AUDIT_ID`."""
        given = request.headers.get("audit-id", "")
        return given if given and len(given) <= _ID_LENGTH and given.isprintable() else self._ids.uuid()

    def begin(self, request: Request, audit_id: str = "") -> AuditRecord | None:
        """Note that a request came: after authentication, with its info known. None where nothing is to be told.

        Raises InternalError where the auditor is strict and the event cannot be kept.
        """
        if self._policy is None:
            return None
        config = self._policy.evaluate(request.impersonator or request.user, request.info or _NOWHERE)
        if config.level is AuditLevel.NONE:
            return None
        record = AuditRecord(self, request, config, audit_id or self.audit_id(request))
        if not record._emit("RequestReceived") and self._strict:
            raise internal_error("failed to store audit event")
        return record

    def unauthenticated(self, request: Request, audit_id: str = "", body: Body = None) -> None:
        """Tell of a request whose credentials are not good."""
        if self._policy is None:
            return
        config = self._policy.evaluate(None, request.info or _NOWHERE)
        if config.level is not AuditLevel.NONE:
            record = AuditRecord(self, request, config, audit_id or self.audit_id(request))
            record.status = {**status_of(401, body), "message": _attempted(request)}
            record._emit("ResponseStarted")

    def _write(self, event: Event) -> bool:
        self._events.inc()
        kept = self._sink.write(event)
        if not kept:
            self._dropped.inc()
        return kept


class AuditRecord:
    """What is known of one request. After `response` or `panic` it is done; what follows is passed over."""

    __slots__ = ("_auditor", "_base", "_config", "_done", "_request", "_request_body", "_response_body", "id", "status")

    def __init__(self, auditor: Auditor, request: Request, config: Config, audit_id: str) -> None:
        self.id = audit_id
        self.status: dict[str, Any] | None = None
        self._auditor = auditor
        self._request = request
        self._config = config
        self._done = False
        self._request_body: Body = None
        self._response_body: Body = None
        received = auditor._clock.now()
        info = request.info or _NOWHERE
        self._base: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": _LEVEL_NAMES[config.level],
            "auditID": audit_id,
            "requestURI": request.target,
            "verb": info.verb,
            "sourceIPs": source_ips(request) or None,
            "userAgent": _agent(request) or None,
            "objectRef": _reference(info),
            "requestReceivedTimestamp": received,
        }

    @property
    def wants_bodies(self) -> bool:
        """Whether the request's body is told."""
        return self._config.level >= AuditLevel.REQUEST

    def request_object(self, body: Body, obj: Object | None = None) -> None:
        """Note what was sent: the object or the patch as JSON, and where it is decoded the object, for its name."""
        if self._config.level >= AuditLevel.REQUEST:
            self._request_body = body
        reference = self._base["objectRef"]
        metadata = (obj or {}).get("metadata")
        if reference is not None and isinstance(metadata, dict):
            found = {field: metadata.get(field) for field in ("namespace", "name", "uid", "resourceVersion")}
            added = {field: text for field, text in found.items() if text and not reference.get(field)}
            self._base["objectRef"] = {**reference, **added}

    def annotate(self, name: str, text: str) -> None:
        """Add an annotation; the first one of a name stays, as in Kubernetes."""
        self._request.annotations.setdefault(name, text)

    def started(self, status: int) -> None:
        """Note that a long-running answer has begun."""
        if self.status is None and not self._done:
            self.status = {"metadata": {}, "code": status}
            self._emit("ResponseStarted")

    def response(self, status: int, body: Body = None) -> None:
        """Note the answer, or that a long-running one ended; of a Status in the body the reason is told as well."""
        if self._done:
            return
        if self.status is None or body is not None:
            self.status = status_of(status, body)
        if self._config.level >= AuditLevel.REQUEST_RESPONSE:
            self._response_body = body
        self._emit("ResponseComplete")
        self._done = True

    def closed(self, *, long_running: bool = False) -> None:
        """Note that the request ended without an answer."""
        if self._done:
            return
        if self.status is None:
            self.status = {"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200}
            if long_running:
                self._emit("ResponseStarted")
        self._emit("ResponseComplete")
        self._done = True

    def panic(self, error: BaseException) -> None:
        """Note that the server failed. Of the error its type is told: its text may hold anything."""
        if self._done:
            return
        message = f"APIServer panic'd: {type(error).__name__}"
        self.status = {
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": "InternalError",
            "code": 500,
        }
        self._emit("Panic")
        self._done = True

    def _emit(self, stage: str) -> bool:
        if stage in self._config.omit_stages:
            return True
        auditor, request = self._auditor, self._request
        received = self._base["requestReceivedTimestamp"]
        real = request.impersonator or request.user
        fields = {
            **self._base,
            "stage": stage,
            "user": real if real is not None else {},
            "responseStatus": self.status,
            "stageTimestamp": received if stage == "RequestReceived" else auditor._clock.now(),
            "annotations": dict(request.annotations) or None,
        }
        if request.impersonator is not None and request.user is not None:
            fields["impersonatedUser"] = request.user
        event = Event(fields, self._request_body, self._response_body, self._config.omit_managed_fields)
        return auditor._write(event)


def _reference(info: RequestInfo) -> dict[str, str] | None:
    if not info.is_resource:
        return None
    told = {
        "resource": info.resource,
        "namespace": info.namespace,
        "name": info.name,
        "apiGroup": info.group,
        "apiVersion": info.version,
        "subresource": info.subresource,
    }
    return {name: text for name, text in told.items() if text}


def _agent(request: Request) -> str:
    agent = request.headers.get("user-agent", "")
    return f"{agent[:_AGENT_LENGTH]}...TRUNCATED" if len(agent) > _AGENT_LENGTH else agent


def _attempted(request: Request) -> str:
    methods = []
    scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
    if scheme in {"basic", "bearer"}:
        methods.append(scheme)
    if request.param("access_token"):
        methods.append("access_token")
    if request.peer is not None and request.peer.certificate:
        methods.append("x509")
    if not methods:
        return "Authentication failed, no credentials provided"
    return f"Authentication failed, attempted: {', '.join(methods)}"


def source_ips(request: Request) -> list[str]:
    """Return where a request came from: X-Forwarded-For, X-Real-Ip, then the peer, each as far as it is an address."""
    found = [ip for part in request.headers.get("x-forwarded-for", "").split(",") if (ip := _ip(part.strip()))]
    real = _ip(request.headers.get("x-real-ip", ""))
    if real and real not in found:
        found.append(real)
    peer = _ip(request.peer.address) if request.peer is not None else None
    if peer and found[-1:] != [peer]:
        found.append(peer)
    return found


def _ip(text: str) -> str | None:
    return None if not text or len(text) > _IP_LENGTH else _address(text)


@lru_cache(1024)
def _address(text: str) -> str | None:
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
