"""Backends that routes refer to: Services with their endpoints, protocol, TLS and limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from pilothouse.kinds.structs import EndpointSlice, Resource, Service, ServicePort
from pilothouse.traffic import config

from .certificates import Problem, authority_of
from .conditions import Conditions
from .filters import seconds
from .kinds.common import GROUP
from .kinds.policies import BackendTLSPolicy, TrafficPolicy
from .plain import plain
from .snapshot import Key, Snapshot, key_of

__all__ = ["Backends", "Filled", "KindOfRoute", "Plan", "Seen", "TlsOf", "endpoints_of"]

R = TypeVar("R", bound=Resource)
Seen: TypeAlias = tuple[type[Resource], Key, Resource | None]
"""An object that was looked up, and what was found."""
KindOfRoute: TypeAlias = Literal["http", "grpc", "stream"]

_PLAIN: Final = frozenset({"http", "kubernetes.io/ws", "ws", "tcp", ""})
_H2: Final = frozenset({"kubernetes.io/h2c", "h2c", "http2", "grpc"})
_TLS: Final = frozenset({"https", "kubernetes.io/wss", "wss", "tls", "ssl"})


@dataclass(frozen=True)
class Plan:
    """A backend without its endpoints, which change more often. port: the Service's."""

    service: Key
    port: ServicePort
    bare: config.Backend
    external: str = ""

    def filled(self, slices: Sequence[EndpointSlice]) -> config.Backend:
        """Return the backend with the endpoints that slices have."""
        if self.external:
            endpoints: tuple[config.Endpoint, ...] = (config.Endpoint(address=self.external, port=self.port.port),)
        else:
            endpoints = endpoints_of(slices, self.port)
        return plain(msgspec.structs.replace(self.bare, endpoints=endpoints))


@dataclass(frozen=True, slots=True)
class Filled:
    """A backend, and what it was made of."""

    plan: Plan
    slices: Sequence[EndpointSlice]
    backend: config.Backend


def endpoints_of(slices: Iterable[EndpointSlice], port: ServicePort) -> tuple[config.Endpoint, ...]:
    """Return the endpoints of a Service's port that take requests, or finish those that they have begun."""
    found: dict[tuple[str, int], config.Endpoint] = {}
    for each in slices:
        if each.address_type == "FQDN":
            continue
        number = next((one.port for one in each.ports if (one.name or "") == (port.name or "")), None)
        if number is None:
            continue
        for endpoint in each.endpoints:
            is_ready = endpoint.conditions.ready is not False
            is_finishing = bool(endpoint.conditions.serving and endpoint.conditions.terminating)
            if not endpoint.addresses or not (is_ready or is_finishing):
                continue
            place = endpoint.addresses[0], number
            is_draining = bool(endpoint.conditions.terminating)
            if place not in found or found[place].is_draining:
                found[place] = config.Endpoint(address=place[0], port=number, is_draining=is_draining)
    return tuple(found[place] for place in sorted(found))


@dataclass
class TlsOf:
    """A BackendTLSPolicy, and what came of it. ancestors: the gateways whose routes it matters to."""

    policy: BackendTLSPolicy
    conditions: Conditions
    tls: config.BackendTls | None = None
    ancestors: dict[Key, Key] = field(default_factory=dict)


class Backends:
    """Resolves references of routes to backends; collects the plans of those that are used."""

    def __init__(self, snapshot: Snapshot, *, may_leave: bool = False) -> None:
        """Make it. may_leave: whether a Service of type ExternalName is a backend, which in a cluster it is not."""
        self._snapshot = snapshot
        self._may_leave = may_leave
        self.plans: dict[str, Plan] = {}
        self.policies = [TlsOf(each, Conditions(each.metadata.generation)) for each in snapshot.all(BackendTLSPolicy)]
        self.used: list[str] = []
        """The plans that were resolved to, since somebody emptied the list."""
        self.secured: list[tuple[Key, Key]] = []
        """The policies by which, and the gateways for which, since then."""
        self.seen: list[Seen] = []
        """What was looked up since then."""
        self._tls = self._by_target()
        self._limits = _limits_of(snapshot)

    def resolve(
        self,
        ref: Any,
        source: tuple[str, str, str],
        gateways: Iterable[Key],
        *,
        kind: KindOfRoute = "http",
        certificate: str = "",
    ) -> str:
        """Return the name of the backend that an object (group, kind, namespace) refers to. Raises Problem."""
        if ref.group or ref.kind != "Service":
            named = f"{ref.group or 'core'}/{ref.kind}"
            raise Problem("InvalidKind", f"backends of kind {named} ('{ref.name}') are not supported; use a Service")
        key = (ref.namespace or source[2], ref.name)
        if not self._snapshot.may_refer(source, "", "Service", key):
            raise Problem(
                "RefNotPermitted", f"no ReferenceGrant in '{key[0]}' allows Service '{key[1]}' for {source[1]}s"
            )
        service = self.look(Service, key)
        if service is None:
            raise Problem("BackendNotFound", f"Service '{key[0]}/{key[1]}' is not there")
        port = next((each for each in service.spec.ports if each.port == ref.port), None)
        if port is None:
            raise Problem("BackendNotFound", f"Service '{key[0]}/{key[1]}' has no port {ref.port}")
        external = self._external(service)
        return self._planned(key, port, external, tuple(gateways), kind, certificate)

    def _external(self, service: Service) -> str:
        if service.spec.type != "ExternalName":
            return ""
        name = "/".join(key_of(service))
        if not self._may_leave:
            raise Problem("BackendNotFound", f"Service '{name}' is of type ExternalName, which is no backend here")
        return service.spec.external_name

    def _planned(
        self, key: Key, port: ServicePort, external: str, gateways: tuple[Key, ...], kind: str, certificate: str
    ) -> str:
        speaks = port.app_protocol or ""
        found = None if kind == "stream" else self._tls.get((*key, port.name or "")) or self._tls.get((*key, ""))
        tls: config.BackendTls | None = None
        if found is not None:
            found.ancestors.update({gateway: gateway for gateway in gateways})
            self.secured += [(key_of(found.policy), gateway) for gateway in gateways]
            tls = found.tls
            if tls is None:
                return config.INVALID  # not by plain text where TLS was asked for
        elif kind != "stream" and speaks.lower() in _TLS:
            tls = config.BackendTls(hostname=external or f"{key[1]}.{key[0]}.svc")
        protocol = _protocol(speaks, kind)
        name = f"{key[0]}/{key[1]}:{port.port}" + ("" if kind == "http" else f"/{kind}")
        if tls is not None and certificate:
            tls = msgspec.structs.replace(tls, certificate=certificate)
            name += f"@{certificate}"
        if name not in self.plans:
            bare = config.Backend(protocol=protocol, tls=tls, **self._limits.get(key, {}))
            self.plans[name] = Plan(key, port, bare, external)
        self.used.append(name)
        return name

    def begin(self) -> None:
        """Empty the lists of what was used."""
        self.used, self.secured, self.seen = [], [], []

    def look(self, kind: type[R], key: Key) -> R | None:
        """Return an object that a route refers to, and note that it does."""
        found = self._snapshot.get(kind, key)
        self.seen.append((kind, key, found))
        return found

    def take(self, plans: Mapping[str, Plan], secured: Iterable[tuple[Key, Key]]) -> None:
        """Take over what was found out for a route that has not changed."""
        self.plans.update(plans)
        by_key = {key_of(each.policy): each for each in self.policies} if secured else {}
        for policy, gateway in secured:
            by_key[policy].ancestors[gateway] = gateway

    def _by_target(self) -> dict[tuple[str, str, str], TlsOf]:
        """Return the policy of each Service, or of a named port of one: the oldest where there are several."""
        found: dict[tuple[str, str, str], TlsOf] = {}
        self.rivals: dict[int, TlsOf] = {}
        for each in self.policies:
            each.tls = _validation(self._snapshot, each)
            namespace = each.policy.metadata.namespace
            for target in each.policy.spec.target_refs:
                if target.group or target.kind != "Service":
                    continue
                place = namespace, target.name, target.section_name or ""
                winner = found.setdefault(place, each)
                if winner is not each:
                    message = f"'{winner.policy.metadata.name}' is older and has the same target"
                    each.conditions.set("Accepted", False, "Conflicted", message)
                    self.rivals[id(each)] = winner
        return found

    def filled(self, before: Mapping[str, Filled]) -> dict[str, Filled]:
        """Return the backends with their endpoints; those made of the same are the same as before."""
        slices = self._snapshot.slices
        made: dict[str, Filled] = {}
        for name, plan in self.plans.items():
            own, old = slices.get(plan.service, ()), before.get(name)
            is_same = old is not None and old.slices is own and (old.plan is plan or old.plan == plan)
            made[name] = old if old is not None and is_same else Filled(plan, own, plan.filled(own))
        return made

    @property
    def surroundings(self) -> tuple[object, ...]:
        """What is found out of policies and grants, which matters to all routes."""
        tls = [(key_of(each.policy), each.policy.spec.target_refs, each.tls) for each in self.policies]
        return self._snapshot.grants, tls, self._limits


def _protocol(speaks: str, kind: str) -> Literal["http/1.1", "h2", "tcp"]:
    if kind == "stream":
        return "tcp"
    spoken = speaks.lower()
    if kind == "grpc" or spoken in _H2:
        return "h2"
    if spoken in _PLAIN or spoken in _TLS or not spoken.startswith("kubernetes.io/"):
        return "http/1.1"
    raise Problem("UnsupportedProtocol", f"appProtocol '{speaks}' is not supported; use kubernetes.io/h2c or ws")


def _validation(snapshot: Snapshot, found: TlsOf) -> config.BackendTls | None:
    """Return how a backend's certificate is checked, None where that cannot be known; say so in the conditions."""
    spec = found.policy.spec.validation
    names = tuple(str(each.hostname or each.uri) for each in spec.subject_alt_names)
    if spec.well_known_ca_certificates:
        if spec.well_known_ca_certificates != "System":
            message = f"wellKnownCACertificates '{spec.well_known_ca_certificates}' is not known; use System"
            found.conditions.fail("Accepted", "Invalid", message)
            return None
        return config.BackendTls(hostname=spec.hostname, names=names)
    source = (GROUP, "BackendTLSPolicy", found.policy.metadata.namespace)
    authority, problems = authority_of(
        snapshot, spec.ca_certificate_refs, source, bad_kind="InvalidKind", invalid="InvalidCACertificateRef"
    )
    for problem in problems:
        found.conditions.fail("ResolvedRefs", problem.reason, problem.message)
    if not authority:
        message = problems[0].message if problems else "there are no authorities"
        found.conditions.fail("Accepted", "NoValidCACertificate", message)
        return None
    return config.BackendTls(hostname=spec.hostname, ca=authority, names=names)


def _limits_of(snapshot: Snapshot) -> Mapping[Key, dict[str, Any]]:
    """Return what policies say of Services, the oldest where there are several."""
    found: dict[Key, dict[str, Any]] = {}
    for policy in snapshot.all(TrafficPolicy):
        made = _limits(policy)
        for target in policy.spec.target_refs:
            if not target.group and target.kind == "Service":
                found.setdefault((policy.metadata.namespace, target.name), made)
    return found


def _limits(policy: TrafficPolicy) -> dict[str, Any]:
    spec = policy.spec
    made: dict[str, Any] = {}
    if (health := spec.health_check) is not None:
        made["health"] = config.HealthCheck(
            path=health.path,
            every=seconds(health.interval),
            timeout=seconds(health.timeout),
            healthy=health.healthy,
            unhealthy=health.unhealthy,
        )
    if (outliers := spec.outlier_ejection) is not None:
        made["outliers"] = config.OutlierEjection(
            failures=outliers.failures, seconds=seconds(outliers.duration), most=outliers.most_percent
        )
    if (circuit := spec.circuit_breaker) is not None:
        made["circuit"] = config.CircuitBreaker(
            connections=circuit.connections, requests=circuit.requests, waiting=circuit.waiting
        )
    if spec.slow_start:
        made["slow_start"] = seconds(spec.slow_start)
    return made
