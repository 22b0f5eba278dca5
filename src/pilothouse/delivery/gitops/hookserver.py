"""Where webhooks are taken: a small server of their own, bounded, within a manager that has GitOps."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.tls import ReloadingContext, TlsError
from pilothouse.operator import Companion
from pilothouse.operator.serving import HttpRequest, HttpServer, Page, ServingLimits

from .webhooks import MAX_BYTES, PATH

__all__ = ["Receiver", "WebhookServer", "listening"]

_BACKLOG: Final = 64
_LAST_SECONDS: Final = 1.0
_RENEW_SECONDS: Final = 6 * 3_600.0
_LIMITS: Final = ServingLimits(
    connections=64,
    head_bytes=16_384,
    body_bytes=lambda _: MAX_BYTES,
    body_seconds=15.0,
    buffered_bytes=2 * MAX_BYTES,
    idle_seconds=10.0,
)
_log = get_logger("pilothouse.delivery.gitops")


class Receiver(Protocol):
    """The port: what takes webhooks, such as `WebhookReceiver`."""

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """Take one; return the status and the sentence to answer."""


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; who connects early waits in its backlog. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


class WebhookServer(Companion):
    """A manager's companion: it answers once the caches are filled.

    bound: see `listening`. tls: renewed files are taken up; without it only loopback is served. renew: called now and
    then, makes these files anew where they are old. Raises ValueError.
    """

    name = "webhooks"

    def __init__(
        self,
        bound: socket.socket,
        receiver: Receiver,
        tls: ReloadingContext | None,
        *,
        renew: Callable[[], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._receiver = receiver
        self._tls = tls
        self._make_anew = renew
        self._clock = clock or SystemClock()
        context = tls.context if tls is not None else None
        self._server = HttpServer(
            bound, self._answer, what="webhook address", remedy="give it a certificate", tls=context, limits=_LIMITS
        )

    async def _answer(self, request: HttpRequest) -> Page:
        self._renew()
        if request.path != PATH:
            return Page(404, f"webhooks are posted to {PATH}\n".encode())
        try:
            status, text = self._receiver.handle(request.method, request.headers, request.body)
        except Exception as error:  # noqa: BLE001  # the last stop: a handler must not raise
            _log.error("a webhook failed", error=repr(error), exc_info=True)
            status, text = 500, "taking it failed; the log of Pilothouse says more"
        return Page(status, f"{text}\n".encode())

    def _renew(self) -> None:
        if self._tls is None:
            return
        try:
            self._tls.reload_if_changed()
        except TlsError as error:
            _log.error("a new certificate of webhooks cannot be used", error=str(error))

    async def run(self) -> None:
        """Answer until it is cancelled; what was asked by then is still answered, within a second."""
        await self._server.start()
        try:
            while True:
                await self._clock.sleep(_RENEW_SECONDS)
                await asyncio.to_thread(self._renew_files)
        finally:
            await self._server.stop(_LAST_SECONDS)

    def _renew_files(self) -> None:
        try:
            if self._make_anew is not None:
                self._make_anew()
        except (TlsError, OSError) as error:
            _log.error("the certificate of webhooks cannot be made anew", error=str(error))
