"""The server of webhooks: over TLS, on a socket that listens early, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from pilothouse.delivery.gitops import hookserver
from pilothouse.delivery.gitops.hookserver import WebhookServer, listening
from pilothouse.delivery.gitops.webhooks import MAX_BYTES, WebhookAnswer
from pilothouse.foundation.certificates import kept_certificate
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.tls import ReloadingContext
from support.loglines import logged


class Receiver:
    """Answers what it was given; fails for a body that says so."""

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> WebhookAnswer:
        if body == b"fail":
            raise RuntimeError("a secret value")
        return WebhookAnswer(200 if headers.get("x-proof") else 401, f"{method} {len(body)}")


class Served:
    """Asks a server, each time on a connection of its own."""

    def __init__(self, port: int, ca: Path) -> None:
        self.port = port
        self.context = ssl.create_default_context(cafile=str(ca))

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        return await asyncio.to_thread(self._ask, method, path, body, headers)

    def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        made = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.context)
        with contextlib.closing(made):
            made.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = made.getresponse()
            return answer.status, answer.read().decode().strip()


@contextlib.asynccontextmanager
async def serving(place: Path) -> AsyncIterator[Served]:
    tls = ReloadingContext(*kept_certificate(place, "webhook", "127.0.0.1"))
    bound = listening("127.0.0.1", 0)
    server = WebhookServer(bound, Receiver(), tls)
    running = asyncio.create_task(server.run())
    try:
        yield Served(bound.getsockname()[1], place / "webhook-ca.crt")
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_it_answers_over_tls_by_path_and_says_what_is_wrong(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert await served.ask("POST", "/api/webhook", b"{}", x_proof="yes") == (200, "POST 2")
        assert await served.ask("POST", "/api/webhook", b"{}") == (401, "POST 2")
        assert await served.ask("POST", "/", b"{}") == (404, "webhooks are posted to /api/webhook")
        with logged(hookserver) as lines:
            status, text = await served.ask("POST", "/api/webhook", b"fail")
        assert (status, "secret" in text) == (500, False)
        assert [(line["event"], line["log_level"]) for line in lines] == [("a webhook failed", "error")]


async def test_an_oversize_body_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        status, text = await served.ask("POST", "/api/webhook", b"", content_length=str(MAX_BYTES + 1))
        assert (status, f"at most {MAX_BYTES}" in text) == (413, True)
        parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in [b"x" * (1 << 20)] * (MAX_BYTES // (1 << 20) + 1)]
        made = http.client.HTTPSConnection("127.0.0.1", served.port, timeout=30, context=served.context)

        def stream() -> int:
            with contextlib.closing(made):
                made.putrequest("POST", "/api/webhook")
                made.putheader("Transfer-Encoding", "chunked")
                made.endheaders()
                for part in parts:
                    made.send(part)
                return made.getresponse().status

        assert await asyncio.to_thread(stream) == 413


async def test_who_comes_early_waits_and_a_renewed_certificate_is_taken_up(tmp_path: Path) -> None:
    tls = ReloadingContext(*kept_certificate(tmp_path, "webhook", "127.0.0.1"))
    renewed, clock = threading.Event(), FakeClock()

    def renew() -> None:
        for name in ("webhook.crt", "webhook.key", "webhook-ca.crt", "webhook-ca.key"):
            (tmp_path / name).unlink()
        kept_certificate(tmp_path, "webhook", "127.0.0.1")
        renewed.set()

    bound = listening("127.0.0.1", 0)
    server = WebhookServer(bound, Receiver(), tls, renew=renew, clock=clock)
    served = Served(bound.getsockname()[1], tmp_path / "webhook-ca.crt")
    early = asyncio.create_task(served.ask("POST", "/api/webhook", b"1", x_proof="yes"))
    running = asyncio.create_task(server.run())
    try:
        assert await early == (200, "POST 1")
        clock.advance(6 * 3_600)
        assert await asyncio.to_thread(renewed.wait, 30)
        anew = Served(served.port, tmp_path / "webhook-ca.crt")
        assert (await served.ask("POST", "/api/webhook", b"2", x_proof="yes"))[0] == 200, "the old one until a request"
        assert (await anew.ask("POST", "/api/webhook", b"3", x_proof="yes"))[0] == 200
        with pytest.raises(ssl.SSLError):
            await served.ask("POST", "/api/webhook", b"4", x_proof="yes")
    finally:
        running.cancel()
        await asyncio.wait([running])
    with pytest.raises(ConnectionRefusedError):
        await served.ask("POST", "/api/webhook", b"5")


def test_only_loopback_is_served_without_a_certificate() -> None:
    with contextlib.closing(listening("127.0.0.1", 0)) as bound:
        WebhookServer(bound, Receiver(), None)
    with (
        contextlib.closing(socket.create_server(("0.0.0.0", 0))) as bound,
        pytest.raises(ValueError, match="plain text"),
    ):
        WebhookServer(bound, Receiver(), None)
