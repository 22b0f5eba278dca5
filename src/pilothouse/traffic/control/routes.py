"""Routes: to which listeners they attach, what their rules become, and what their status says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pilothouse.kinds.structs import to_dict
from pilothouse.traffic import config
from pilothouse.traffic.routing import BadRoute, Router

from .backends import Backends, KindOfRoute
from .certificates import Problem
from .conditions import CONTROLLER, Conditions, StatusOf
from .filters import Unsupported, filters_of, grpc_match, http_match, retry_of, seconds, stickiness_of, timeouts_of
from .kinds import GRPCRoute, HTTPRoute, RegionWeights, TCPRoute, TLSRoute, TrafficPolicy
from .kinds.common import GROUP, ParentReference
from .kinds.policies import OWN_GROUP
from .listeners import Bound, allows_namespace
from .ownpolicies import rate_of
from .snapshot import Key, Snapshot, key_of, seconds_of

__all__ = ["AnyRoute", "Attached", "Parents", "attach", "compiled", "hosts_meet", "policies_of"]

AnyRoute: TypeAlias = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute
_EVERY: Final = (config.Match(),)
_NONE: Final[tuple[config.Filter, ...]] = ()


@dataclass
class Parents:
    """What routes attach to. listeners: by kind, namespace and name of what is ours; certificates: of gateways.

    policies: of ours, by the kind and key of the route that they are about.
    """

    listeners: dict[tuple[str, str, str], list[Bound]] = field(default_factory=dict)
    certificates: dict[Key, str] = field(default_factory=dict)
    policies: Mapping[tuple[str, Key], TrafficPolicy] = field(default_factory=dict)


@dataclass
class Attached:
    """A route and what came of each of its parents that is ours."""

    route: AnyRoute
    parents: list[tuple[ParentReference, Conditions, list[Bound]]] = field(default_factory=list)

    @property
    def bound(self) -> list[Bound]:
        """The listeners that it attaches to, each once."""
        return list({id(each): each for _, _, found in self.parents for each in found}.values())

    @property
    def gateways(self) -> list[Key]:
        """The gateways that it attaches to."""
        return list(dict.fromkeys(each.gateway for each in self.bound))

    def fail(self, kind: str, reason: str, message: str) -> None:
        """Say at all parents that a condition is false."""
        for _, conditions, _ in self.parents:
            conditions.fail(kind, reason, message)

    def status(self) -> StatusOf:
        """Return what the route's status should say."""
        entries: list[Mapping[str, Any]] = []
        for ref, conditions, _ in self.parents:
            conditions.default("Accepted", True, "Accepted")
            conditions.default("ResolvedRefs", True, "ResolvedRefs")
            entries.append({"parentRef": to_dict(ref), "controllerName": CONTROLLER, "conditions": conditions.listed()})
        return StatusOf(type(self.route), *key_of(self.route), shared=("parents", entries))


def attach(snapshot: Snapshot, route: AnyRoute, parents: Parents) -> Attached:
    """Find the listeners that a route attaches to."""
    made = Attached(route)
    for ref in route.spec.parent_refs:
        if ref.group != GROUP:
            continue
        key = (ref.kind, ref.namespace or route.metadata.namespace, ref.name)
        if (listeners := parents.listeners.get(key)) is None:
            continue
        conditions = Conditions(route.metadata.generation)
        made.parents.append((ref, conditions, _taken_by(snapshot, route, ref, listeners, conditions)))
    return made


def _taken_by(
    snapshot: Snapshot, route: AnyRoute, ref: ParentReference, listeners: Sequence[Bound], conditions: Conditions
) -> list[Bound]:
    named = [
        each for each in listeners if ref.section_name in {None, each.spec.name} and ref.port in {None, each.spec.port}
    ]
    if not named:
        wanted = ref.section_name or f"port {ref.port}"
        conditions.fail("Accepted", "NoMatchingParent", f"{ref.kind} '{ref.name}' has no listener '{wanted}'")
        return []
    allowed = [each for each in named if _allows(snapshot, each, route)]
    if not allowed:
        message = f"no listener of {ref.kind} '{ref.name}' allows {route.gvk[2]}s of namespace '{key_of(route)[0]}'"
        conditions.fail("Accepted", "NotAllowedByListeners", message)
        return []
    hostnames = _hostnames(route)
    met = [each for each in allowed if hosts_meet(each.hostname, hostnames)]
    if not met:
        message = f"no listener of {ref.kind} '{ref.name}' is for any of {', '.join(hostnames)}"
        conditions.fail("Accepted", "NoMatchingListenerHostname", message)
    return met


def _allows(snapshot: Snapshot, bound: Bound, route: AnyRoute) -> bool:
    which = bound.spec.allowed_routes.namespaces
    own = bound.owner.metadata.namespace
    return (
        bound.is_accepted
        and route.gvk[2] in bound.kinds
        and allows_namespace(snapshot, which.from_, which.selector, own, route.metadata.namespace)
    )


def _hostnames(route: AnyRoute) -> tuple[str, ...]:
    return () if isinstance(route, TCPRoute) else tuple(each.lower() for each in route.spec.hostnames)


def hosts_meet(listener: str, hostnames: Sequence[str]) -> bool:
    """Say whether a listener's host name, empty for all, and any of a route's, none for all, have a name in common."""
    return not listener or not hostnames or any(_meets(listener, each) for each in hostnames)


def _meets(one: str, other: str) -> bool:
    if one == other:
        return True
    if one.startswith("*.") and other.endswith(one[1:]):
        return True
    return other.startswith("*.") and one.endswith(other[1:])


# Rules


class Compiler:
    """Makes of one route, at one gateway, what the data plane is told."""

    def __init__(
        self,
        backends: Backends,
        attached: Attached,
        gateways: list[Key],
        certificate: str,
        policy: TrafficPolicy | None,
    ) -> None:
        self._backends = backends
        self._attached = attached
        self._route = attached.route
        self._gateways = gateways
        self._certificate = certificate
        self._source = (GROUP, attached.route.gvk[2], attached.route.metadata.namespace)
        self._policy = policy

    def backend(self, ref: Any) -> str:
        """Return the name of a reference's backend. Raises Problem."""
        kind: KindOfRoute = "grpc" if isinstance(self._route, GRPCRoute) else "http"
        if isinstance(self._route, TLSRoute | TCPRoute):
            kind = "stream"
        return self._backends.resolve(
            ref,
            self._source,
            self._gateways,
            kind=kind,
            certificate=self._certificate,
        )

    def weighted(self, refs: Sequence[Any]) -> tuple[config.Weighted, ...]:
        """Return the shares of references; what leads nowhere has its share too. Raises Unsupported."""
        made: list[config.Weighted] = []
        for ref in refs:
            name, filters = config.INVALID, _NONE
            try:
                name = self.backend(ref)
            except Problem as problem:
                self._attached.fail("ResolvedRefs", problem.reason, problem.message)
            if hasattr(ref, "filters"):
                filters, problems = filters_of(ref.filters, self.backend, of_backend=True)
                self._tell(problems)
            made.append(config.Weighted(backend=name, weight=ref.weight, version=ref.name, filters=filters))
        return tuple(made)

    def _tell(self, problems: Sequence[Problem]) -> None:
        for problem in problems:
            self._attached.fail("ResolvedRefs", problem.reason, problem.message)

    def rule(self, rule: Any, number: int = 0) -> config.HttpRule:
        """Return a rule of an HTTPRoute or GRPCRoute. Raises Unsupported."""
        match = grpc_match if isinstance(self._route, GRPCRoute) else http_match
        filters, problems = filters_of(rule.filters, self.backend)
        self._tell(problems)
        backends = self.weighted(rule.backend_refs)
        regions = self._regions(rule, backends)
        if regions is None:
            backends = ()
        policy = self._policy.spec if self._policy is not None else None
        return config.HttpRule(
            name=rule.name or "",
            matches=tuple(match(each) for each in rule.matches) or _EVERY,
            filters=filters,
            backends=backends,
            regions=regions or (),
            timeouts=timeouts_of(getattr(rule, "timeouts", None)),
            retry=retry_of(getattr(rule, "retry", None)),
            stickiness=stickiness_of(rule.session_persistence, f"{'/'.join(key_of(self._route))}/{rule.name or number}")
            or _stickiness(policy),
            rate=rate_of(self._backends.look, self._policy)[0] if self._policy is not None else None,
        )

    def _regions(self, rule: Any, backends: tuple[config.Weighted, ...]) -> tuple[config.RegionSplit, ...] | None:
        """Return the shares by region that filters of ours name; None where one leads nowhere."""
        made: list[config.RegionSplit] = []
        for each in rule.filters:
            if each.type != "ExtensionRef" or each.extension_ref is None:
                continue
            ref = each.extension_ref
            if (ref.group, ref.kind) != (OWN_GROUP, "RegionWeights"):
                message = f"filters of kind {ref.group}/{ref.kind} are not supported; use {OWN_GROUP}/RegionWeights"
                self._attached.fail("ResolvedRefs", "InvalidKind", message)
                return None
            found = self._backends.look(RegionWeights, (self._source[2], ref.name))
            if found is None:
                message = f"RegionWeights '{self._source[2]}/{ref.name}' is not there"
                self._attached.fail("ResolvedRefs", "BackendNotFound", message)
                return None
            made.extend(self._splits(found, rule.backend_refs, backends))
        return tuple(made)

    def _splits(
        self, found: RegionWeights, refs: Sequence[Any], backends: tuple[config.Weighted, ...]
    ) -> list[config.RegionSplit]:
        made: list[config.RegionSplit] = []
        for share in found.spec.weights:
            weights: dict[int, int] = {}
            for one in share.backends:
                place = next((n for n, r in enumerate(refs) if r.name == one.name and one.port in {None, r.port}), None)
                if place is None:
                    message = f"RegionWeights '{found.metadata.name}' names '{one.name}', which the rule has not"
                    self._attached.fail("ResolvedRefs", "BackendNotFound", message)
                else:
                    weights[place] = one.weight
            chosen = tuple(
                config.Weighted(
                    backend=each.backend, weight=weights.get(n, 0), version=each.version, filters=each.filters
                )
                for n, each in enumerate(backends)
            )
            made.append(config.RegionSplit(regions=tuple(share.regions), backends=chosen))
        return made


def compiled(  # the pure core's inner part
    backends: Backends, attached: Attached, parents: Parents
) -> tuple[list[config.HttpRoute], list[config.StreamRoute]]:
    """Return what the data plane is told of a route: one for each certificate that gateways show to backends."""
    http: list[config.HttpRoute] = []
    streams: list[config.StreamRoute] = []
    by_certificate: dict[str, list[Key]] = {}
    for gateway in attached.gateways:
        by_certificate.setdefault(parents.certificates.get(gateway, ""), []).append(gateway)
    for certificate, gateways in by_certificate.items() or [("", [])]:
        policy = parents.policies.get((attached.route.gvk[2], key_of(attached.route)))
        compiler = Compiler(backends, attached, gateways, certificate, policy)
        names = tuple(
            name for each in attached.bound if each.gateway in gateways and each.is_programmed for name in each.names
        )
        suffix = f"@{certificate}" if certificate else ""
        try:
            made = _made(compiler, attached.route, names, suffix)
        except (Unsupported, BadRoute) as error:
            attached.fail("Accepted", "UnsupportedValue", str(error))
            continue
        if not names:
            continue
        if isinstance(made, config.HttpRoute):
            http.append(made)
        else:
            streams.append(made)
    return http, streams


def _made(
    compiler: Compiler, route: AnyRoute, names: tuple[str, ...], suffix: str
) -> config.HttpRoute | config.StreamRoute:
    name = "/".join(key_of(route)) + suffix
    if isinstance(route, TLSRoute | TCPRoute):
        refs = [ref for rule in route.spec.rules for ref in rule.backend_refs]
        return config.StreamRoute(
            name=name,
            listeners=names,
            hostnames=_hostnames(route),
            backends=compiler.weighted(refs),
            created=seconds_of(route),
        )
    made = config.HttpRoute(
        name=name,
        listeners=names,
        hostnames=_hostnames(route),
        rules=tuple(compiler.rule(rule, number) for number, rule in enumerate(route.spec.rules)),
        is_grpc=isinstance(route, GRPCRoute),
        created=seconds_of(route),
    )
    _check(made)
    return made


def _check(route: config.HttpRoute) -> None:
    """Raise BadRoute for expressions that cannot be compiled, so that one route spoils nothing for others."""
    if any(
        match.path.type == "RegularExpression"
        or any(each.type == "RegularExpression" for each in (*match.headers, *match.queries))
        for rule in route.rules
        for match in rule.matches
    ):
        Router(
            config.Configuration(
                listeners=tuple(
                    config.Listener(name=name, port=1, protocol="HTTP") for name in route.listeners or ("",)
                ),
                routes=(route if route.listeners else config.HttpRoute(name="", listeners=("",), rules=route.rules),),
            )
        )


# Policies of ours


def policies_of(snapshot: Snapshot) -> Mapping[tuple[str, Key], TrafficPolicy]:
    """Return the policy of each route, by its kind and key; the oldest where there are several."""
    found: dict[tuple[str, Key], TrafficPolicy] = {}
    for policy in snapshot.all(TrafficPolicy):
        for target in policy.spec.target_refs:
            if target.group == GROUP:
                found.setdefault((target.kind, (policy.metadata.namespace, target.name)), policy)
    return found


def _stickiness(policy: Any) -> config.Stickiness | None:
    given = policy.stickiness if policy is not None else None
    if given is None:
        return None
    return config.Stickiness(
        type=given.type,
        name=given.name,
        seconds=math.ceil(seconds(given.lifetime)),
        idle_seconds=math.ceil(seconds(given.idle)),
        is_endpoint=given.to == "Endpoint",
    )
