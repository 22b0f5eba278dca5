"""A reverse proxy: plain requests by aiohttp, streamed with back pressure; upgrades by a connection of their own."""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pilothouse.apiserver.model import Answer, Request, Response, Sink, StreamingResponse, refusal
from pilothouse.apiserver.proxying.dialing import CONNECT_SECONDS, dial, dial_error, send_upgrade
from pilothouse.apiserver.proxying.headers import (
    Pairs,
    answer_headers,
    forwarded,
    replace,
    request_headers,
    rewrite_location,
)
from pilothouse.apiserver.proxying.resolve import Backend
from pilothouse.apiserver.streams.negotiation import is_upgrade, plain
from pilothouse.kinds.status import ApiStatus, BadRequest, ServiceUnavailable

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ReverseProxy", "Target", "proxied_path", "proxy_upgrade_aware"]

_WHOLE: Final = 1 << 18
"""Bytes of the longest answer that is read whole before it is sent on."""
_PAGE: Final = 1 << 20
"""Bytes of the longest page whose links are rewritten."""
_CONNECTIONS: Final = 512
_PER_HOST: Final = 128
ANSWER_SECONDS: Final = 3600.0
"""How long a server may take to begin its answer, unless the target says otherwise."""
_BODILESS: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes.

    path: as it stands in the URL, percent-encoded. prefix: of this server's path before what `path` has, put back into
    redirects. tls: for https; None checks against the system's authorities. server_name: of the certificate, the host
    if empty. headers: added to the request in place of those of the same names. seconds: until the answer begins.
    own_host: send the target's own host instead of the client's `Host`. redirects: pass them on; else they are refused.
    """

    backend: Backend
    path: str
    prefix: str = ""
    tls: ssl.SSLContext | None = None
    server_name: str = ""
    headers: Sequence[tuple[str, str]] = ()
    seconds: float = ANSWER_SECONDS
    own_host: bool = False
    redirects: bool = True


def proxied_path(request: Request, subresource: str = "proxy") -> tuple[str, str]:
    """Split the path as sent: up to the `proxy` subresource, and what follows it.

    The parts are counted, not searched for: a pod may be named `proxy`.
    """
    raw = request.target.split("?", 1)[0]
    parts = raw.split("/")
    place = 8 if len(parts) > 3 and parts[3] == "namespaces" else 6
    if len(parts) < place or parts[place - 1] != subresource:
        return raw, ""
    rest = parts[place:]
    return "/".join(parts[:place]), ("/" + "/".join(rest)) if rest else ""


class ReverseProxy:
    """Connections to servers behind this one, kept for reuse. Close it with the server."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._default_tls: ssl.SSLContext | None = None

    def session(self) -> aiohttp.ClientSession:
        """Return the client, made when first needed."""
        if self._session is None:
            import aiohttp  # noqa: PLC0415 - heavy, and idle servers proxy nothing

            connector = aiohttp.TCPConnector(limit=_CONNECTIONS, limit_per_host=_PER_HOST, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def tls(self, target: Target) -> ssl.SSLContext | None:
        """Return the TLS settings of a target, None for plain text."""
        if target.backend.scheme != "https":
            return None
        if target.tls is not None:
            return target.tls
        if self._default_tls is None:
            self._default_tls = ssl.create_default_context()
        return self._default_tls

    async def close(self) -> None:
        """Close all connections that are not in use."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def proxy_upgrade_aware(
    request: Request, target: Target, proxy: ReverseProxy, *, upgrade_required: bool = False
) -> Answer:
    """Carry a request to another server and its answer back; an upgrade where the client asks for one.

    Errors become a Status 503, of an upgrade 500, with Kubernetes' texts.
    """
    try:
        if is_upgrade(request):
            return await _upgrade(request, target, proxy)
        if upgrade_required:
            raise BadRequest("Upgrade request required")
        if not target.path and request.method in {"GET", "HEAD"}:
            query = f"?{request.query_text}" if request.query_text else ""
            return Response(301, b"", [("Location", f"{target.prefix}/{query}")], "")
        return await _forward(request, target, proxy)
    except ApiStatus as error:
        return refusal(error)


def _headers(request: Request, target: Target, *, upgrade: bool) -> Pairs:
    host = request.headers.get("host", "")
    pairs = replace(request_headers(request, upgrade=upgrade), forwarded(request, target.prefix, target.path))
    own = [("Host", target.backend.netloc if target.own_host or not host else host)]
    return replace(replace(pairs, target.headers), own)


def _path(request: Request, target: Target) -> str:
    return (target.path or "/") + (f"?{request.query_text}" if request.query_text else "")


async def _upgrade(request: Request, target: Target, proxy: ReverseProxy) -> Answer:
    backend = target.backend
    dialed = await dial(backend.host, backend.port_number, proxy.tls(target), target.server_name)
    return await send_upgrade(dialed, request.method, _path(request, target), _headers(request, target, upgrade=True))


async def _forward(request: Request, target: Target, proxy: ReverseProxy) -> Answer:
    import aiohttp  # noqa: PLC0415 - as above
    from multidict import CIMultiDict  # noqa: PLC0415
    from yarl import URL  # noqa: PLC0415

    backend = target.backend
    url = URL(f"{backend.scheme}://{backend.netloc}{_path(request, target)}", encoded=True)
    context = proxy.tls(target)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, connect=CONNECT_SECONDS)
    try:
        async with asyncio.timeout(target.seconds):
            response = await proxy.session().request(
                request.method,
                url,
                headers=CIMultiDict(_headers(request, target, upgrade=False)),
                data=request.body or None,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
                ssl=context if context is not None else True,
                server_hostname=target.server_name or None,
                timeout=timeout,
            )
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        cause = _cause(error)
        text = dial_error(backend.host, backend.port_number, cause)
        raise ServiceUnavailable(f"error trying to reach service: {text}") from error
    try:
        return await _answer(request, target, response)
    except BaseException:
        # Cancelled ones too: the connection must not be left to the garbage collector.
        response.close()
        raise


def _cause(error: BaseException) -> BaseException:
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    return inner if isinstance(inner, BaseException) else error


async def _answer(request: Request, target: Target, response: aiohttp.ClientResponse) -> Answer:
    import aiohttp  # noqa: PLC0415 - as above

    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
    headers = answer_headers(pairs)
    kind = response.headers.get("Content-Type", "")
    if 300 <= response.status < 400 and "Location" in response.headers:
        if not target.redirects:
            response.close()
            return plain(502, "the backend attempted to redirect this request, which is not permitted")
        hosts = (target.backend.netloc, request.headers.get("host", ""))
        location = rewrite_location(response.headers["Location"], target.prefix, hosts)
        headers = replace(headers, [("Location", location)])
    if request.method == "HEAD" or response.status in _BODILESS:
        response.release()
        return Response(response.status, b"", headers, kind)
    if target.prefix and kind.split(";", 1)[0].strip() == "text/html":
        try:
            return await _page(request, target, response, headers)
        except (aiohttp.ClientError, OSError) as error:
            raise ServiceUnavailable(f"error trying to reach service: {error}") from error
    length = response.content_length
    if length is not None and length <= _WHOLE:
        try:
            return Response(response.status, await response.read(), headers, kind)
        except (aiohttp.ClientError, OSError) as error:
            raise ServiceUnavailable(f"error trying to reach service: {error}") from error
    return StreamingResponse(lambda sink: _copy(response, sink), response.status, headers, kind)


async def _page(request: Request, target: Target, response: aiohttp.ClientResponse, headers: Pairs) -> Answer:
    """Answer with a page whose links lead through this server; one too long or in an unknown coding stays as it is."""
    from pilothouse.apiserver.proxying.htmllinks import rewrite_links  # noqa: PLC0415 - few answers are pages

    kind = response.headers.get("Content-Type", "")
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > _PAGE:
            copy = partial(_copy, response, held=bytes(body))
            return StreamingResponse(copy, response.status, headers, kind)
    response.release()
    plain_body = _decoded(bytes(body), response.headers.get("Content-Encoding", ""))
    if plain_body is None:
        return Response(response.status, bytes(body), headers, kind)
    hosts = (target.backend.netloc, request.headers.get("host", ""))
    page = rewrite_links(
        plain_body.decode("utf-8", "surrogateescape"), lambda link: rewrite_location(link, target.prefix, hosts)
    )
    rest = [pair for pair in headers if pair[0].lower() != "content-encoding"]
    return Response(response.status, page.encode("utf-8", "surrogateescape"), rest, kind)


def _decoded(body: bytes, coding: str) -> bytes | None:
    """Undo the coding of a page; None for one that is not known, broken or too long."""
    if coding in {"", "identity"}:
        return body
    if coding != "gzip":
        return None
    inflate = zlib.decompressobj(31)
    try:
        found = inflate.decompress(body, _PAGE)
    except zlib.error:
        return None
    return found if inflate.eof else None


async def _copy(response: aiohttp.ClientResponse, sink: Sink, held: bytes = b"") -> None:
    """Send a body on as it comes, no faster than the client takes it; what was read already goes first."""
    try:
        if held:
            sink.write(held)
        async for data in response.content.iter_any():
            sink.write(data)
            await sink.drain()
            if sink.closed:
                return
    finally:
        response.close()
