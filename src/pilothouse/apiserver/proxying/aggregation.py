"""Aggregated APIs: which APIService serves a group and version, and requests carried to its server."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pilothouse.apiserver.model import Answer, Request, User
from pilothouse.apiserver.ports import Object, View
from pilothouse.apiserver.proxying import availability
from pilothouse.apiserver.proxying.dialing import dial_error
from pilothouse.apiserver.proxying.headers import Pairs, remote_user
from pilothouse.apiserver.proxying.resolve import Backend, Resolver, service_slices
from pilothouse.apiserver.proxying.reverse import ANSWER_SECONDS, ReverseProxy, Target, proxy_upgrade_aware
from pilothouse.apiserver.streams.negotiation import plain
from pilothouse.kinds.status import ApiStatus

__all__ = ["API_SERVICES", "Aggregator", "Route", "routes"]

API_SERVICES: Final = "apiservices.apiregistration.k8s.io"
_AGGREGATOR: Final = User("system:kube-aggregator", groups=("system:masters",))
_DISCOVERY_SECONDS: Final = 5.0
_ATTEMPTS: Final = 5
_MAX_DISCOVERY: Final = 4 << 20
"""Bytes of the longest discovery document that is read."""
_MAX_CONTEXTS: Final = 256


@dataclass(frozen=True, slots=True)
class Route:
    """An APIService whose server is another one."""

    name: str
    group: str
    version: str
    service_namespace: str
    service_name: str
    service_port: int
    ca_bundle: str = ""
    """PEM in base64."""
    insecure: bool = False
    available: bool = False

    @property
    def server_name(self) -> str:
        """The name that the server's certificate must have."""
        return f"{self.service_name}.{self.service_namespace}.svc"


def routes(view: View) -> Mapping[tuple[str, str], Route]:
    """Return which groups and versions are served elsewhere; those without a service are served here."""
    found: dict[tuple[str, str], Route] = {}
    for api_service in view.list(API_SERVICES):
        spec = api_service.get("spec") or {}
        reference = spec.get("service")
        if not reference:
            continue
        route = Route(
            api_service["metadata"]["name"],
            spec.get("group", ""),
            spec.get("version", ""),
            reference.get("namespace", ""),
            reference.get("name", ""),
            reference.get("port") or 443,
            spec.get("caBundle") or "",
            insecure=bool(spec.get("insecureSkipTLSVerify")),
            available=availability.is_available(api_service),
        )
        found[route.group, route.version] = route
    return found


class Aggregator:
    """Carries requests for aggregated APIs to their servers, and asks these whether they serve.

    front_proxy: files of the client certificate and key by which their servers trust the X-Remote headers.
    """

    def __init__(
        self,
        view: View,
        proxy: ReverseProxy,
        *,
        front_proxy: tuple[str, str] | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._view = view
        self._proxy = proxy
        self._front_proxy = front_proxy
        self._resolver = resolver or Resolver(view)
        self._version = -1
        self._routes: Mapping[tuple[str, str], Route] = {}
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """Return which groups and versions are served elsewhere, computed once for each change."""
        version = self._view.version(API_SERVICES)
        if version != self._version:
            self._routes, self._version = routes(self._view), version
        return self._routes

    def route(self, path: str) -> Route | None:
        """Return where a path is served, None where it is here."""
        known = self.routes()
        if not known:
            return None
        parts = path.split("/", 4)
        if len(parts) >= 4 and parts[1] == "apis":
            return known.get((parts[2], parts[3]))
        return known.get(("", parts[2])) if len(parts) >= 3 and parts[1] == "api" else None

    async def answer(self, request: Request, route: Route) -> Answer:
        """Carry a request to the route's server, as the user that authentication found."""
        if not route.available:
            return plain(503, "service unavailable")
        if request.user is None:
            return plain(500, "missing user")
        try:
            backend = self._backend(route)
        except ApiStatus:
            return plain(503, "service unavailable")
        try:
            target = self._target(route, backend, request.target.split("?", 1)[0], remote_user(request.user))
        except (ssl.SSLError, OSError, ValueError, binascii.Error) as error:
            return plain(500, f"APIService {route.name}: spec.caBundle cannot be used: {error}")
        return await proxy_upgrade_aware(request, target, self._proxy)

    def _backend(self, route: Route) -> Backend:
        return self._resolver.api_service(route.service_namespace, route.service_name, route.service_port)

    def _target(self, route: Route, backend: Backend, path: str, headers: Pairs) -> Target:
        discovery = len(path.strip("/").split("/")) == 3
        return Target(
            backend,
            path,
            tls=self._context(route),
            server_name=route.server_name,
            headers=headers,
            own_host=True,
            seconds=_DISCOVERY_SECONDS if discovery else ANSWER_SECONDS,
        )

    def _context(self, route: Route) -> ssl.SSLContext:
        known = (route.ca_bundle, route.insecure)
        context = self._contexts.get(known)
        if context is None:
            bundle = base64.b64decode(route.ca_bundle, validate=True).decode("ascii") if route.ca_bundle else None
            context = ssl.create_default_context(cadata=bundle)
            if route.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self._front_proxy is not None:
                context.load_cert_chain(*self._front_proxy)
            if len(self._contexts) >= _MAX_CONTEXTS:
                self._contexts.clear()
            self._contexts[known] = context
        return context

    def renew(self) -> None:
        """Read the front-proxy certificate again: its files have changed."""
        self._contexts.clear()

    async def condition(self, api_service: Object) -> Object:
        """Compute the Available condition of an APIService, asking its server where objects do not tell."""
        reference = (api_service.get("spec") or {}).get("service") or {}
        namespace, name = reference.get("namespace", ""), reference.get("name", "")
        told = availability.before_discovery(
            api_service,
            self._view.get("services", namespace, name) if reference else None,
            service_slices(self._view, namespace, name) if reference else (),
            self._view.get("endpoints", namespace, name) if reference else None,
        )
        if told is not None:
            return told
        spec = api_service["spec"]
        route = Route(
            api_service["metadata"]["name"],
            spec.get("group", ""),
            spec["version"],
            namespace,
            name,
            reference.get("port") or 443,
            spec.get("caBundle") or "",
            insecure=bool(spec.get("insecureSkipTLSVerify")),
        )
        path = availability.discovery_path(api_service)
        attempts = [asyncio.create_task(self._ask(route, path)) for _ in range(_ATTEMPTS)]
        error = ""
        try:
            # One good answer of several is enough: services may have an address that does not serve.
            for attempt in asyncio.as_completed(attempts):
                _, _, error = await attempt
                if not error:
                    break
        finally:
            for task in attempts:
                task.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)
        return availability.from_discovery(error)

    async def fetch(self, route: Route, path: str, accept: str = "application/json") -> tuple[bytes, str] | None:
        """Fetch a discovery document of an aggregated API with its content type; None where it cannot be had."""
        body, kind, error = await self._ask(route, path, accept)
        return None if error else (body, kind)

    async def _ask(self, route: Route, path: str, accept: str = "application/json") -> tuple[bytes, str, str]:
        import aiohttp  # noqa: PLC0415 - heavy, and few servers aggregate

        try:
            backend = self._backend(route)
            url = f"https://{backend.netloc}{path}"
            context = self._context(route)
        except ApiStatus as error:
            return b"", "", error.message
        except (ssl.SSLError, OSError, ValueError, binascii.Error) as error:
            return b"", "", f"spec.caBundle cannot be used: {error}"
        try:
            async with (
                asyncio.timeout(_DISCOVERY_SECONDS),
                self._proxy.session().get(
                    url,
                    headers=[*remote_user(_AGGREGATOR), ("Accept", accept)],
                    allow_redirects=False,
                    ssl=context,
                    server_hostname=route.server_name,
                ) as response,
            ):
                if not 200 <= response.status < 300:
                    bad = f"bad status from {url}: {response.status}"
                    return b"", "", f"failing or missing response from {url}: {bad}"
                body = bytearray()
                async for data in response.content.iter_any():
                    body += data
                    if len(body) > _MAX_DISCOVERY:
                        return b"", "", f"more than {_MAX_DISCOVERY} bytes from {url}"
                return bytes(body), response.headers.get("Content-Type", ""), ""
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
            why = dial_error(backend.host, backend.port_number, cause)
            return b"", "", f'failing or missing response from {url}: Get "{url}": {why}'
