"""The API server: all parts plugged together over one store. It has no sockets; transports call its `handle`."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from pilothouse.apiserver.access.escalation import EscalationPlugin
from pilothouse.apiserver.access.pki import Pki
from pilothouse.apiserver.access.wiring import Access, AccessSettings
from pilothouse.apiserver.admission.assembly import dynamic_steps
from pilothouse.apiserver.admission.builtins import standard
from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.changing import settle
from pilothouse.apiserver.admission.webhook_client import WebhookClient, service_resolver
from pilothouse.apiserver.allocation import Allocator
from pilothouse.apiserver.audit import AuditLog, Auditor, Event
from pilothouse.apiserver.backends import Backends
from pilothouse.apiserver.background import Background
from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.cache.view import CacheView
from pilothouse.apiserver.definitions import Definitions
from pilothouse.apiserver.discovery import Discovery
from pilothouse.apiserver.elsewhere import Elsewhere
from pilothouse.apiserver.flow import FlowControl
from pilothouse.apiserver.health import Health
from pilothouse.apiserver.local import LocalCaller
from pilothouse.apiserver.model import Answer, Request, RequestInfo, Response
from pilothouse.apiserver.nodeclient import NodeClient
from pilothouse.apiserver.nodemetrics import NodeMetrics
from pilothouse.apiserver.openapi import OpenApi
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.pipeline import Pipeline
from pilothouse.apiserver.ports import AdmissionPlugin, Gvk, NodeStreams, Object
from pilothouse.apiserver.proxying.aggregation import Aggregator
from pilothouse.apiserver.questions import Questions
from pilothouse.apiserver.requestmetrics import RequestMetrics
from pilothouse.apiserver.rest.catalogue import Catalogue
from pilothouse.apiserver.rest.engine import Engine
from pilothouse.apiserver.rest.reading import Reading
from pilothouse.apiserver.rest.rendering import Renderer
from pilothouse.apiserver.rest.watching import Watching
from pilothouse.apiserver.routing import Router, page_not_found
from pilothouse.apiserver.storing import ChangedError, Storage
from pilothouse.foundation.memoryfiles import MemoryFileSystem
from pilothouse.kinds.registry import builtin
from pilothouse.store import Store

__all__ = ["ApiServer"]

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_ROOT_PATHS = ("/healthz", "/livez", "/readyz", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks")


class ApiServer:
    """A Kubernetes API over a store. `await start()` before use, `await close()` after; the store stays open.

    pki: the cluster's keys, made and kept in memory if none are given. ciphers: by full name of a resource, what hides
    its objects in the store. front_proxy: files of certificate and key by which aggregated servers know this one.
    nodes: runs pods; where None, pods are reached by their nodes' own servers, if there is a node_client.
    """

    def __init__(
        self,
        store: Store,
        options: ServerOptions,
        *,
        pki: Pki | None = None,
        ciphers: Mapping[str, Any] | None = None,
        front_proxy: tuple[str, str] | None = None,
        nodes: NodeStreams | None = None,
        node_client: NodeClient | None = None,
    ) -> None:
        self.options = options
        self.store = store
        clock, ids = options.clock, options.ids
        names = {each.resource: each.full_name for each in builtin() if "list" in each.verbs and each.storage}
        self.cacher = Cacher(store, clock, names, ciphers)
        self.view = CacheView(self.cacher)
        self.storage = Storage(store, self.cacher, clock, ciphers)
        self.local = LocalCaller(self.handle)
        self.catalogue = Catalogue(self.cacher, loopback_endpoints=options.loopback_endpoints)
        self.webhooks = WebhookClient(service_resolver(self.view), clock)
        self.definitions = Definitions(self)
        self.pki = pki or _pki_in_memory(options)
        self.access = Access(self.view, self.pki, _access_settings(options), clock=clock, ids=ids)
        self.accounts = self.access.tokens
        self.flow = FlowControl(self.view, clock, options.limits, options.metrics)
        self.allocator = Allocator(self.cacher, self.storage, clock, ids, options.allocation)
        self.admission = Admission(self._plugins())
        self.engine = Engine(self.storage, self.admission, self.allocator, self.access.authorizer, clock, ids)
        renderer = Renderer(clock)
        self.watching = Watching(self.cacher, renderer, clock, ids)
        questions = Questions(self.engine, self.access.reviews, self.access.token_requests)
        self.backends = Backends(self.engine, self.view, nodes, clock, node_client, local=options.loopback_endpoints)
        self.router = Router(
            self.catalogue,
            self.engine,
            renderer,
            Reading(self.cacher, self.storage, renderer),
            self.watching,
            self.view,
            questions,
            self.backends,
        )
        self.aggregator = Aggregator(self.view, self.backends.proxy, front_proxy=front_proxy)
        self.elsewhere = Elsewhere(self.view, self.aggregator, clock)
        self.node_metrics = NodeMetrics(self.view, self.backends.proxy, lambda: self.backends.node_client, clock)
        self.health = Health()
        self._discovery = Discovery(server_address=options.advertise, root_paths=_ROOT_PATHS)
        self._openapi = OpenApi(clock, self.definitions.openapi)
        self._audit_log = AuditLog(options.audit_log, clock) if options.audit_log else None
        self.pipeline = Pipeline(
            self.access.authenticator,
            self.access.authorizer,
            self.flow,
            Auditor(options.audit_policy, self._audit_log or _Nowhere(), clock, ids, metrics=options.metrics),
            RequestMetrics.of(options.metrics),
            clock,
            self._answer,
        )
        self.background = Background(self)
        self._plain: dict[str, Callable[[Request], Answer | Awaitable[Answer]]] = {
            "/metrics": self._metrics,
            "/openid/v1/jwks": self._jwks,
            "/.well-known/openid-configuration": self._openid,
        }

    async def start(self) -> None:
        """Load what the store has and begin to serve. Raises StoreError where it cannot be read."""
        self._add_checks()
        await self.cacher.start()
        await self.definitions.start()
        await self.background.start()

    async def close(self) -> None:
        """End watches and background work; what was accepted is written."""
        self.watching.end_all()
        await self.background.close()
        await self.definitions.close()
        await self.webhooks.close()
        await self.storage.close()
        await self.backends.close()
        await self.cacher.close()
        self.flow.close()
        self.access.close()
        if self._audit_log is not None:
            self._audit_log.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def listening_at(self, host: str, port: int) -> None:
        """Tell where clients reach this server, for the service `kubernetes`."""
        self.background.listening_at(host, port)

    def also_answer(self, path: str, answer: Callable[[Request], Answer | Awaitable[Answer]]) -> None:
        """Serve a path that is no resource."""
        self._plain[path] = answer

    async def encrypt_anew(self, resource: str, stale: Callable[[bytes], bool]) -> int:
        """Write the objects of a resource again whose stored bytes are stale; return how many. Raises ApiStatus."""
        cache = self.cacher.named(resource)
        written = 0
        for entry in cache.entries() if cache is not None else ():
            if cache is None or not await self.storage.is_stored(cache, entry, stale):
                continue
            with contextlib.suppress(ChangedError):  # whoever changed it used the new key
                await self.storage.rewrite(cache, entry)
                written += 1
        return written

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request: the `Handler` of every transport."""
        return self.pipeline.handle(request)

    def _plugins(self) -> list[AdmissionPlugin]:
        options, authorizer, find = self.options, self.access.authorizer, self._resource_of
        steps = standard(
            self.view,
            authorizer,
            self.local,
            options.ids,
            options.clock,
            resources=find,
            dynamic=dynamic_steps(
                self.view,
                authorizer,
                options.ids,
                lambda: self.webhooks,
                find=find,
                schemas=self.catalogue.conversions.schema,
                settle=self._settled,
            ),
            enable=options.enable_admission,
            disable=options.disable_admission,
        )
        return [EscalationPlugin(self.access.escalation), *steps]

    def _settled(self, obj: Object, gvk: Gvk) -> Object:
        """Return an object that a webhook changed as its kind holds it. Raises SettleError."""
        resource = self.catalogue.registry.by_kind(*gvk)
        served = self.catalogue.served(*resource.key) if resource is not None else None
        if served is None or served.custom is None:
            return settle(obj, gvk)
        return served.custom.default(served.custom.prune(obj)[0])

    def _resource_of(self, api_version: str, kind: str) -> tuple[str, bool] | None:
        group, _, version = api_version.rpartition("/")
        found = self.catalogue.registry.by_kind(group, version, kind)
        return None if found is None else (found.resource, found.namespaced)

    def _add_checks(self) -> None:
        checks = self.health.checks
        checks["log"] = lambda: ""
        checks["store"] = lambda: self.storage.refusing
        checks["watch-cache"] = lambda: self.cacher.behind
        for name in ("system-namespaces", "rbac/bootstrap-roles", "priority-and-fairness-config-producer"):
            checks[f"poststarthook/{name}"] = self._start_check(name)

    def _start_check(self, name: str) -> Callable[[], str]:
        return lambda: "not finished" if name in self.background.pending else ""

    # What is no resource

    def _answer(self, request: Request, info: RequestInfo) -> Answer | Awaitable[Answer]:
        elsewhere = self.aggregator.route(info.path)
        if elsewhere is not None:
            return self.aggregator.answer(request, elsewhere)
        if self.node_metrics.serves(info.path):
            return self.node_metrics.answer(request, info)
        if info.is_resource:
            return self.router.route(request, info)
        found = self.health.answer(request) or self._discovery.answer(
            request, self.catalogue.registry, (*self.node_metrics.versions(), *self.elsewhere.versions)
        )
        if found is not None:
            return found
        other = self._plain.get(request.path)
        if other is not None:
            return other(request)
        return self._openapi.answer(request, self.catalogue.registry) or page_not_found()

    def _metrics(self, request: Request) -> Response:
        return Response(200, self.options.metrics.exposition(), content_type=_TEXT)

    def _jwks(self, request: Request) -> Response:
        return Response(200, self.access.jwks(), content_type="application/jwk-set+json")

    def _openid(self, request: Request) -> Response:
        return Response(200, self.access.openid_configuration(self.options.advertise or "kubernetes.default.svc"))


def _pki_in_memory(options: ServerOptions) -> Pki:
    made = Pki("/memory/pki", clock=options.clock, ids=options.ids, files=MemoryFileSystem())
    made.ensure()
    return made


def _access_settings(options: ServerOptions) -> AccessSettings:
    return AccessSettings(
        users=options.tokens,
        issuers=options.issuers,
        api_audiences=options.audiences,
        anonymous=options.anonymous,
        oidc=options.oidc,
        oidc_ca=options.oidc_ca or None,
    )


class _Nowhere:
    """Takes audit events where no log is kept."""

    def write(self, event: Event) -> bool:
        return True
