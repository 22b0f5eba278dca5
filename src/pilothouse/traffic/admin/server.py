"""The pages of a running gateway, for its owner: HTTP/1.1 with JSON over a unix socket."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import msgspec
from prometheus_client import CollectorRegistry, generate_latest

from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import CONTENT_TYPE
from pilothouse.operator.serving import HttpRequest, HttpServer, Page, ServingLimits
from pilothouse.traffic.numbers import Key

from .answers import Counters
from .sockets import AdminSocketError, OwnedSocket
from .views import backends_now, counters_now, routes_now, top_now

if TYPE_CHECKING:
    from pilothouse.traffic.gateway import Gateway

__all__ = ["BY", "MOST_SECONDS", "AdminServer", "open_admin"]

_log = get_logger(__name__)

BY: Final = ("route", "version", "region")
"""By what `top` tells apart where nothing is said."""
MOST_SECONDS: Final = 300
_MOST_TOP: Final = 1_000
_LIMITS: Final = ServingLimits(connections=16, head_seconds=5.0)
_JSON: Final = "application/json"


class _BadQuery(ValueError):
    """A parameter is not as it has to be; the message names it."""


class AdminServer:
    """Answers the owner of a gateway from its event loop: `start`, then `close`. Raises AdminSocketError."""

    def __init__(self, gateway: Gateway, path: Path) -> None:
        self._gateway = gateway
        self._owned = OwnedSocket(path)
        self._registry = CollectorRegistry()
        self._registry.register(gateway.totals)
        self._pages: Mapping[str, Callable[[dict[str, str]], Awaitable[object]]] = {
            "/routes": self._routes,
            "/backends": self._backends,
            "/top": self._top,
            "/counters": self._counters,
        }
        self._server = HttpServer(self._owned.sock, self._answer, what="admin socket", limits=_LIMITS)

    @property
    def path(self) -> Path:
        """Where it listens."""
        return self._owned.path

    async def start(self) -> None:
        """Begin to answer."""
        await self._server.start()

    async def close(self) -> None:
        """End, and remove the socket."""
        await self._server.stop(1.0)
        self._owned.close()

    async def _answer(self, request: HttpRequest) -> Page:
        if request.method != "GET":
            return Page(405, b"only GET is answered here\n")
        if request.path == "/metrics":
            return Page(200, generate_latest(self._registry), CONTENT_TYPE)
        page = self._pages.get(request.path)
        if page is None:
            return Page(404, f"there are: {' '.join(self._pages)} /metrics\n".encode())
        try:
            answer = await page(dict(parse_qsl(request.query)))
        except _BadQuery as error:
            return Page(400, f"{error}\n".encode())
        except Exception as error:  # noqa: BLE001  the next question may go well
            _log.exception("an answer to the owner failed", path=request.path)
            return Page(500, f"{error!r}; the gateway's log says more\n".encode())
        return Page(200, msgspec.json.encode(answer), _JSON)

    async def _routes(self, query: dict[str, str]) -> object:
        gateway = self._gateway
        seconds = _number(query, "seconds", 10, MOST_SECONDS)
        return routes_now(gateway.configuration, gateway.windows, gateway.totals.in_flight, seconds, time.monotonic())

    async def _backends(self, query: dict[str, str]) -> object:
        gateway = self._gateway
        seconds = _number(query, "seconds", 10, MOST_SECONDS)
        shown = await gateway.show()
        now, wall = time.monotonic(), time.time()
        return backends_now(gateway.configuration, shown, gateway.endpoints, seconds, now, wall)

    async def _top(self, query: dict[str, str]) -> object:
        gateway = self._gateway
        seconds = _number(query, "seconds", 10, MOST_SECONDS)
        most = _number(query, "most", 20, _MOST_TOP)
        by = tuple(dict.fromkeys(query.get("by", ",".join(BY)).split(",")))
        for name in by:
            if name not in Key._fields:
                raise _BadQuery(f"by: {name!r} is none of {', '.join(Key._fields)}")
        counters, flying = self._counted(), gateway.totals.in_flight
        return top_now(gateway.windows, flying, counters, by, most, seconds, time.monotonic())

    async def _counters(self, query: dict[str, str]) -> object:
        del query
        return self._counted()

    def _counted(self) -> Counters:
        gateway = self._gateway
        return counters_now(gateway.totals, gateway.workers, gateway.configuration.generation)


def _number(query: dict[str, str], name: str, usual: int, most: int) -> int:
    text = query.get(name, str(usual))
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
        raise _BadQuery(f"{name}: {text!r}, want a number from 1 to {most}")
    return int(text)


async def open_admin(gateway: Gateway, path: Path, is_needed: bool) -> AdminServer | None:
    """Return the server of a gateway that listens at `path`; None, and a word in the log, where it cannot be had.

    Raises AdminSocketError instead where it is needed.
    """
    try:
        server = AdminServer(gateway, path)
    except AdminSocketError as error:
        if is_needed:
            raise
        _log.warning("the gateway goes without an admin socket", reason=str(error))
        return None
    await server.start()
    _log.info("the gateway answers its owner", admin_socket=str(path))
    return server
