"""The API server: all parts plugged together over one store. It has no sockets; transports call its `handle`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from pilothouse.apiserver.access.authenticator import RequestAuthenticator
from pilothouse.apiserver.access.certificates import CertificateUsers
from pilothouse.apiserver.access.escalation import EscalationCheck
from pilothouse.apiserver.access.frontproxy import FrontProxy
from pilothouse.apiserver.access.rbac import RbacAuthorizer
from pilothouse.apiserver.access.reviews import Reviews
from pilothouse.apiserver.access.serviceaccounts import ServiceAccountTokens
from pilothouse.apiserver.access.signing import KeyRing, new_key, openid_configuration
from pilothouse.apiserver.access.tokenrequest import TokenRequests
from pilothouse.apiserver.access.tokens import BootstrapTokens, StaticTokens, TokenAuthenticator
from pilothouse.apiserver.admission.builtins import standard
from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.webhook_client import WebhookClient, service_resolver
from pilothouse.apiserver.allocation import Allocator
from pilothouse.apiserver.audit import AuditLog, Auditor, Event
from pilothouse.apiserver.backends import Backends
from pilothouse.apiserver.background import Background
from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.cache.view import CacheView
from pilothouse.apiserver.definitions import Definitions
from pilothouse.apiserver.discovery import Discovery
from pilothouse.apiserver.flow import FlowControl
from pilothouse.apiserver.health import Health
from pilothouse.apiserver.local import LocalCaller
from pilothouse.apiserver.model import Answer, Request, RequestInfo, Response
from pilothouse.apiserver.openapi import OpenApi
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.pipeline import Pipeline
from pilothouse.apiserver.ports import AdmissionPlugin, NodeStreams, Object
from pilothouse.apiserver.questions import Questions
from pilothouse.apiserver.requestmetrics import RequestMetrics
from pilothouse.apiserver.rest.catalogue import Catalogue
from pilothouse.apiserver.rest.engine import Call, Engine
from pilothouse.apiserver.rest.reading import Reading
from pilothouse.apiserver.rest.rendering import Renderer
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.rest.watching import Watching
from pilothouse.apiserver.routing import NOT_FOUND, Router
from pilothouse.apiserver.storing import Storage
from pilothouse.kinds.registry import builtin
from pilothouse.store import Store

__all__ = ["ApiServer"]

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_ROOT_PATHS = ("/healthz", "/livez", "/readyz", "/metrics", "/openapi/v2", "/openapi/v3", "/openid/v1/jwks")


class _Hooks:
    """Around writes: addresses of services, and rights that are handed out."""

    def __init__(self, allocator: Allocator, escalation: EscalationCheck) -> None:
        self.before_create = allocator.before_create
        self.before_update = allocator.before_update
        self.after_delete = allocator.after_delete
        self._escalation = escalation

    def check_grant(self, served: Served, new: Object, old: Object | None, call: Call) -> None:
        if served.resource.group == "rbac.authorization.k8s.io" and call.request.user is not None:
            self._escalation.check_write(call.request.user, new, old)


class ApiServer:
    """A Kubernetes API over a store. `await start()` before use, `await close()` after; the store stays open.

    certificates, front_proxy: who may show client certificates, and speak for others. keys: sign service accounts'
    tokens. ciphers: by full name of a resource, what hides its objects in the store. nodes: runs pods.
    """

    def __init__(  # noqa: PLR0913 - the parts that differ from one program to another
        self,
        store: Store,
        options: ServerOptions,
        *,
        certificates: CertificateUsers | None = None,
        front_proxy: FrontProxy | None = None,
        keys: KeyRing | None = None,
        ciphers: Mapping[str, Any] | None = None,
        tokens: Sequence[TokenAuthenticator] = (),
        nodes: NodeStreams | None = None,
    ) -> None:
        self.options = options
        self.store = store
        clock, ids = options.clock, options.ids
        names = {each.resource: each.full_name for each in builtin() if "list" in each.verbs and each.storage}
        self.cacher = Cacher(store, clock, names, ciphers)
        self.view = CacheView(self.cacher)
        self.storage = Storage(store, self.cacher, clock, ciphers)
        self.local = LocalCaller(self.handle)
        self.catalogue = Catalogue(self.cacher)
        self.webhooks = WebhookClient(service_resolver(self.view), clock)
        self.definitions = Definitions(self)
        self.rbac = RbacAuthorizer(self.view)
        self.keys = keys or KeyRing(new_key())
        self.accounts = ServiceAccountTokens(
            self.view, self.keys, options.issuers, api_audiences=options.audiences, clock=clock, ids=ids
        )
        self.authenticator = RequestAuthenticator(
            self.view,
            certificates=certificates,
            front_proxy=front_proxy,
            tokens=(
                StaticTokens(options.tokens),
                BootstrapTokens(self.view, clock=clock),
                self.accounts,
                *tokens,
            ),
            anonymous=options.anonymous,
            clock=clock,
        )
        self.flow = FlowControl(self.view, clock, options.limits, options.metrics)
        self.allocator = Allocator(self.cacher, self.storage, clock, ids, options.allocation)
        self.admission = Admission(self._plugins())
        hooks = _Hooks(self.allocator, EscalationCheck(self.rbac, self.rbac))
        self.engine = Engine(self.storage, self.admission, hooks, clock, ids)
        renderer = Renderer(clock)
        self.watching = Watching(self.cacher, renderer, clock, ids)
        reviews = Reviews(self.authenticator, self.rbac, self.rbac, api_audiences=self.accounts.api_audiences)
        questions = Questions(self.engine, reviews, TokenRequests(self.view, self.accounts, clock=clock))
        self.backends = Backends(self.engine, self.view, nodes, clock)
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
        self.health = Health()
        self._discovery = Discovery(server_address=options.advertise, root_paths=_ROOT_PATHS)
        self._openapi = OpenApi(clock, self.definitions.openapi)
        self._audit_log = AuditLog(options.audit_log, clock) if options.audit_log else None
        self.pipeline = Pipeline(
            self.authenticator,
            self.rbac,
            self.flow,
            Auditor(options.audit_policy, self._audit_log or _Nowhere(), clock, ids, metrics=options.metrics),
            RequestMetrics(options.metrics),
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
        self.authenticator.close()
        self.flow.close()
        self.rbac.close()
        if self._audit_log is not None:
            self._audit_log.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer a request: the `Handler` of every transport."""
        return self.pipeline.handle(request)

    def _plugins(self) -> list[AdmissionPlugin]:
        options = self.options
        return standard(
            self.view,
            self.rbac,
            self.local,
            options.ids,
            options.clock,
            resources=self._resource_of,
            enable=options.enable_admission,
            disable=options.disable_admission,
        )

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
        if info.is_resource:
            return self.router.route(request, info)
        found = self.health.answer(request) or self._discovery.answer(request, self.catalogue.registry)
        if found is not None:
            return found
        other = self._plain.get(request.path)
        if other is not None:
            return other(request)
        return self._openapi.answer(request, self.catalogue.registry) or NOT_FOUND

    def _metrics(self, request: Request) -> Response:
        return Response(200, self.options.metrics.exposition(), content_type=_TEXT)

    def _jwks(self, request: Request) -> Response:
        return Response(200, self.keys.jwks(), content_type="application/jwk-set+json")

    def _openid(self, request: Request) -> Response:
        issuer = self.options.issuers[0]
        uri = f"https://{self.options.advertise or 'kubernetes.default.svc'}/openid/v1/jwks"
        return Response(200, openid_configuration(issuer, uri, self.keys))


class _Nowhere:
    """Takes audit events where no log is kept."""

    def write(self, event: Event) -> bool:
        return True
