"""A webhook in the test process: a TLS server on loopback that answers as a test tells it."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from pilothouse.foundation import tls
from pilothouse.foundation.tls import Credentials

Review = dict[str, Any]
Answer = Callable[[Review], Any]

_CA = tls.make_ca("webhooks")
NAMES = ("hook.space.svc", "127.0.0.1", "localhost")


def patch_of(*operations: Review) -> Review:
    """Return the part of a response that carries a patch."""
    encoded = base64.b64encode(json.dumps(list(operations)).encode()).decode()
    return {"patch": encoded, "patchType": "JSONPatch"}


class WebhookServer:
    """Answers POSTs by path. `answers[path]` gives the `response`, or bytes or a `web.Response` sent as they are."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[Review], Awaitable[Any]]] = {}
        self.reviews: list[tuple[str, Review]] = []
        self.queries: list[str] = []
        self.peers: set[Any] = set()
        self.authority = base64.b64encode(_CA.certificate).decode()
        self.stranger = base64.b64encode(tls.make_ca("other").certificate).decode()
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self, directory: Path, credentials: Credentials | None = None) -> WebhookServer:
        """Listen on a free port of loopback."""
        issued = credentials or tls.issue(_CA, "hook", hosts=NAMES, server=True)
        # The authority is part of the chain that the server shows.
        files = str(directory / "hook.crt"), str(directory / "hook.key")
        tls.write(Credentials(issued.certificate + _CA.certificate, issued.key), *files)
        app = web.Application()
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls.server_context(*files))
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Close the server and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    def url(self, path: str = "/") -> str:
        """Return the address of a path."""
        return f"https://127.0.0.1:{self.port}{path}"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        review = await request.json()
        self.reviews.append((request.path, review))
        self.queries.append(request.query_string)
        self.peers.add(request.transport.get_extra_info("peername") if request.transport else None)
        answer = self.answers[request.path](review)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, web.StreamResponse):
            return answer
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="application/json")
        response = {"uid": review["request"]["uid"], **answer}
        told = {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}
        return web.json_response(told)
