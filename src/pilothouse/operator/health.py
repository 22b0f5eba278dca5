"""The operator's own small HTTP server: /healthz, /readyz and /metrics, for probes and Prometheus."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Final

from pilothouse.foundation.logs import get_logger

from .serving import HttpRequest, HttpServer, Page, ServingLimits

__all__ = ["Check", "HealthServer", "Page", "run_checks"]

Check = Callable[[], str]
"""Says what is wrong; empty if nothing is."""

_REMEDY: Final = "pass `health_tls`, an SSL context made by pilothouse.foundation.tls, or listen on 127.0.0.1"

_log = get_logger("pilothouse.operator.health")


def run_checks(name: str, checks: Mapping[str, Check], *, verbose: bool = False) -> Page:
    """Run checks and say, as Kubernetes' own servers do, which of them fail. One that raises fails."""
    found = {check: _problem(function) for check, function in checks.items()}
    failed = any(found.values())
    if not failed and not verbose:
        return Page(200, b"ok")
    lines = [f"[-]{check} failed: {problem}" if problem else f"[+]{check} ok" for check, problem in found.items()]
    lines.append(f"{name} check {'failed' if failed else 'passed'}")
    return Page(500 if failed else 200, "\n".join(lines).encode() + b"\n")


def _problem(check: Check) -> str:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  a check that cannot be run is one that fails
        return repr(error)


class HealthServer(HttpServer):
    """Serves pages by path to GET requests, one a connection; see `HttpServer` for addresses and errors."""

    def __init__(
        self, address: str, pages: Mapping[str, Callable[[bool], Page]], tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(address, self._answer, what="health address", remedy=_REMEDY, tls=tls, limits=ServingLimits())
        self._pages = pages

    async def _answer(self, request: HttpRequest) -> Page:
        if request.method not in {"GET", "HEAD"}:
            return Page(405, b"GET and HEAD are answered here\n")
        page = self._pages.get(request.path)
        if page is None:
            return Page(404, f"there are: {' '.join(self._pages)}\n".encode())
        try:
            return page("verbose" in request.query)
        except Exception as error:  # noqa: BLE001  the next request may go well
            _log.error("page failed", path=request.path, error=repr(error))
            return Page(500, b"this page failed; the log says why\n")
