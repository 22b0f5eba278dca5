"""What the server counts of requests: how many, of which kind, with which end, how long."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.model import Request, RequestInfo
from pilothouse.foundation.metrics import PROGRAM, Metrics

__all__ = ["RequestMetrics"]

_KINDS = 4096
"""Different kinds of requests counted apart; those beyond are counted together."""


class RequestMetrics:
    """Counts requests by verb, resource and code. What a request needs is one look-up."""

    def __init__(self, metrics: Metrics = PROGRAM) -> None:
        labels = ("verb", "group", "version", "resource", "subresource", "code")
        self._requests = metrics.counter("pilothouse_apiserver_requests_total", "Requests answered.", labels)
        self._seconds = metrics.histogram(
            "pilothouse_apiserver_request_seconds", "Time from a request to its answer.", ("verb", "resource")
        )
        self._known: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def observe(self, request: Request, info: RequestInfo, code: int, seconds: float) -> None:
        """Count one request."""
        key = (info.verb, info.group, info.resource, info.subresource, code)
        found = self._known.get(key)
        if found is None:
            found = self._kind(key, info, code)
        found[0].inc()
        found[1].observe(seconds)

    def _kind(self, key: tuple[Any, ...], info: RequestInfo, code: int) -> tuple[Any, Any]:
        resource = info.resource if info.is_resource else ""
        if len(self._known) >= _KINDS:
            other = ("other", "", "", "other", "", str(code))
            return self._requests.labels(*other), self._seconds.labels("other", "other")
        verb = info.verb if info.is_resource else "other"
        counter = self._requests.labels(verb, info.group, info.version, resource, info.subresource, str(code))
        made = self._known[key] = counter, self._seconds.labels(verb, resource)
        return made
