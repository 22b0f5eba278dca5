"""Calling webhooks: HTTPS to services of the cluster and to addresses, connections kept, everything bounded."""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from pilothouse.apiserver.ports import Object, View
from pilothouse.foundation import tls
from pilothouse.foundation.clock import Clock
from pilothouse.kinds import status
from pilothouse.kinds.fielderrors import quote

if TYPE_CHECKING:
    import aiohttp

__all__ = ["CallError", "Resolve", "Target", "WebhookClient", "service_resolver"]

MAX_RESPONSE: Final = 3 * 1024 * 1024
_CONTEXTS: Final = 200
_SERVICES: Final = 1024
_CONNECTIONS: Final = 512
_PER_HOST: Final = 64
_ERROR_TEXT: Final = 2048
_CHUNK: Final = 64 * 1024

T = TypeVar("T")
Resolve = Callable[[str, str, int], tuple[str, int]]
"""Gives host and port for namespace, name and port of a service. Raises CallError where there are none."""


class CallError(Exception):
    """A webhook could not be called or did not answer properly; the message is as Go words it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook is: a URL whose host may stand for a service.

    service: namespace, name and port; then the URL's host is the name in the service's certificate.
    """

    url: str
    authorities: bytes = b""
    service: tuple[str, str, int] | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Target:
        """Read a `clientConfig`. Raises CallError."""
        authorities = _decoded(config.get("caBundle"))
        service = config.get("service")
        if service is not None:
            namespace, name = str(service.get("namespace") or ""), str(service.get("name") or "")
            port = int(service.get("port") or 443)
            path = str(service.get("path") or "")
            joined = path if path.startswith("/") or not path else f"/{path}"
            return cls(f"https://{name}.{namespace}.svc:{port}{joined}", authorities, (namespace, name, port))
        url = str(config.get("url") or "")
        if not url:
            raise CallError("webhook configuration must have either service or URL")
        return cls(url, authorities)


def _decoded(bundle: Any) -> bytes:
    import base64  # noqa: PLC0415

    try:
        return base64.b64decode(bundle) if bundle else b""
    except ValueError:
        raise CallError("could not get REST client: unable to load root certificates: illegal base64 data") from None


def service_resolver(view: View) -> Resolve:
    """Return a resolver by the cluster's objects: a ready endpoint where endpoints are known, else the cluster IP."""
    turn = 0

    def resolve(namespace: str, name: str, port: int) -> tuple[str, int]:
        nonlocal turn
        service = view.get("services", namespace, name)
        if service is None:
            raise CallError(f"service {quote(name)} not found")
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return str(spec.get("externalName") or ""), port
        wanted = next((one for one in spec.get("ports") or () if one.get("port") == port), None)
        if wanted is None:
            raise CallError(f"no service port {port} found for service {quote(name)}")
        slices = [
            one
            for one in view.list("endpointslices.discovery.k8s.io", namespace)
            if ((one.get("metadata") or {}).get("labels") or {}).get("kubernetes.io/service-name") == name
        ]
        if slices:
            ready = _ready(slices, wanted)
            if not ready:
                raise CallError(f"no endpoints available for service {quote(name)}")
            turn += 1
            return ready[turn % len(ready)]
        address = spec.get("clusterIP")
        if not address or address == "None":
            raise CallError(f"no endpoints available for service {quote(name)}")
        return str(address), port

    return resolve


def _ready(slices: list[Object], wanted: Object) -> list[tuple[str, int]]:
    found = []
    for one in slices:
        numbers = [
            port.get("port")
            for port in one.get("ports") or ()
            if (port.get("name") or "") == (wanted.get("name") or "")
        ]
        for endpoint in one.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            found += [
                (str(address), int(number))
                for address in endpoint.get("addresses") or ()
                for number in numbers
                if number
            ]
    return found


class WebhookClient:
    """Sends reviews. One per server; `close` ends its connections.

    resolve: finds services. clock: ends calls that take too long.
    """

    def __init__(self, resolve: Resolve, clock: Clock) -> None:
        self._resolve = resolve
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._contexts: OrderedDict[bytes, ssl.SSLContext] = OrderedDict()
        self._services: dict[str, tuple[str, str, int]] = {}

    async def call(self, target: Target, body: bytes, seconds: float) -> bytes:
        """POST a review and return the answer, at most 3 MiB. Raises CallError, after `seconds` at the latest."""
        parameter = f"timeout={-(-int(seconds * 1000) // 1000)}s"
        url = f"{target.url}{'&' if urlsplit(target.url).query else '?'}{parameter}"
        try:
            return await _within(self._clock, seconds, self._send(target, url, body))
        except TimeoutError:
            raise CallError(f'Post "{url}": context deadline exceeded') from None

    async def close(self) -> None:
        """End all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(self, target: Target, url: str, body: bytes) -> bytes:
        import aiohttp  # noqa: PLC0415 - heavy, and only where there are webhooks

        context = self._context(target.authorities)
        session = self._opened()
        if target.service is not None:
            host = urlsplit(target.url).hostname or ""
            if host not in self._services and len(self._services) >= _SERVICES:
                del self._services[next(iter(self._services))]
            self._services[host] = target.service
        try:
            async with session.post(
                url, data=body, ssl=context, allow_redirects=False, headers={"Accept": "application/json, */*"}
            ) as response:
                content = await _bounded(response.content)
                code, kind = response.status, response.headers.get("Content-Type", "")
        except CallError as error:
            raise CallError(f'Post "{url}": {error}') from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallError(f'Post "{url}": {_worded(error)}') from None
        if not 200 <= code < 300:
            raise CallError(_refused(code, content))
        if not content:
            raise CallError(f"0-length response with status code: {code} and content type: {kind}")
        return content

    def _context(self, authorities: bytes) -> ssl.SSLContext:
        found = self._contexts.get(authorities)
        if found is None:
            found = _trusting(authorities) if authorities else tls.client_context()
            self._contexts[authorities] = found
            if len(self._contexts) > _CONTEXTS:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(authorities)
        return found

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp  # noqa: PLC0415
            from aiohttp.abc import AbstractResolver, ResolveResult  # noqa: PLC0415

            services, resolve = self._services, self._resolve
            plain = aiohttp.ThreadedResolver()

            class Resolver(AbstractResolver):
                async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
                    service = services.get(host)
                    if service is None:
                        return await plain.resolve(host, port, family)
                    address, number = resolve(*service)
                    return await plain.resolve(address, number, family)

                async def close(self) -> None:
                    """Close nothing."""

            connector = aiohttp.TCPConnector(
                resolver=Resolver(), use_dns_cache=False, limit=_CONNECTIONS, limit_per_host=_PER_HOST
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "Accept-Encoding": "identity",
                    "Content-Type": "application/json",
                    "User-Agent": "pilothouse-admission",
                },
                # What is compressed may be far larger than it looks.
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _trusting(authorities: bytes) -> ssl.SSLContext:
    """Return a context that trusts these authorities alone, as with any `caBundle`. Raises CallError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        raise CallError("unable to load root certificates: unable to parse bytes as PEM block") from None
    return context


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await content.read(_CHUNK):
        size += len(part)
        if size > MAX_RESPONSE:
            raise CallError(f"the response has more than {MAX_RESPONSE} bytes")
        parts.append(part)
    return b"".join(parts)


async def _within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Await something for so long at most. Raises TimeoutError."""
    task = asyncio.ensure_future(work)
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = clock.call_later(seconds, expire)
    try:
        return await task
    except asyncio.CancelledError:
        if expired:
            raise TimeoutError from None
        task.cancel()
        raise
    finally:
        timer.cancel()


def _worded(error: Exception) -> str:
    """Word a failed connection as Go does."""
    import aiohttp  # noqa: PLC0415

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: {_certificate(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"tls: {error.os_error.strerror or 'handshake failure'}"
    if isinstance(error, aiohttp.ClientConnectorError):
        what = "connection refused" if isinstance(error.os_error, ConnectionRefusedError) else str(error.os_error)
        return f"dial tcp {error.host}:{error.port}: connect: {what}"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "EOF"
    return str(error) or type(error).__name__


def _certificate(error: Exception) -> str:
    told = str(getattr(error, "verify_message", "") or error)
    if "self-signed" in told or "self signed" in told or "unable to get local issuer" in told:
        return "x509: certificate signed by unknown authority"
    if "expired" in told:
        return "x509: certificate has expired or is not yet valid"
    return f"x509: {told}"


def _refused(code: int, content: bytes) -> str:
    """Word an answer that is no success: its own Status if it is one, else what its code means."""
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    if isinstance(found, dict) and found.get("kind") == "Status" and isinstance(found.get("message"), str):
        return str(found["message"])
    text = content[:_ERROR_TEXT].decode("utf-8", "replace").strip()
    return status.generic(code, text).message
