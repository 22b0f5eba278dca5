"""The pure core: from the objects of a moment to a configuration of the data plane, and what statuses should say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from pilothouse.kinds.structs import Ingress, Namespace, to_dict
from pilothouse.traffic import config

from .addresses import Addresses, Assigned, Pool
from .backends import Backends, Filled, Plan, Seen
from .certificates import Problem, certificate_of
from .conditions import CONTROLLER, Conditions, StatusOf
from .features import FEATURES
from .ingresses import PORTS, Entry, ingresses_of, translate_ingresses
from .kinds import (
    BackendTLSPolicy,
    Gateway,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    ListenerSet,
    TCPRoute,
    TLSRoute,
    TrafficPolicy,
)
from .kinds.common import GROUP
from .listeners import Bound, allows_namespace, bind, finish, judge, resolve_conflicts
from .ownpolicies import of_gateways, policy_statuses
from .plain import plain
from .routes import AnyRoute, Parents, attach, compiled, policies_of
from .snapshot import Key, Snapshot, key_of

__all__ = ["Options", "Translation", "translate"]

_ROUTES: Final[tuple[type[AnyRoute], ...]] = (HTTPRoute, GRPCRoute, TLSRoute, TCPRoute)


@dataclass(frozen=True)
class Options:
    """What a translation depends on beside the objects.

    addresses: of gateways. refused: why the data plane could not take up a listener, by its name in the
    configuration. failure: why the whole could not be taken up. may_leave: whether Services of type ExternalName are
    backends, as in files. ingress_ports: where ingresses are reached, without and with TLS.
    """

    addresses: Addresses = Addresses()  # noqa: RUF009  frozen
    refused: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""
    may_leave: bool = False
    ingress_ports: tuple[int, int] = PORTS


_EMPTY: Final[Mapping[Key, Any]] = {}
Place: TypeAlias = tuple[str, Key, str]
"""A listener: the kind of its owner, its owner, and its name."""


@dataclass(frozen=True)
class _Made:
    """What came of a route. places: of listeners that it is attached to. seen: what was looked up for it."""

    route: AnyRoute
    policy: TrafficPolicy | None
    http: Sequence[config.HttpRoute]
    streams: Sequence[config.StreamRoute]
    status: StatusOf | None
    places: Sequence[Place]
    plans: Mapping[str, Plan]
    secured: Sequence[tuple[Key, Key]]
    seen: Sequence[Seen]

    def is_good(self, route: AnyRoute, policy: TrafficPolicy | None, snapshot: Snapshot) -> bool:
        """Say whether the route, its policy, and all that it refers to in a snapshot are the same."""
        if self.route is not route or self.policy is not policy:
            return False
        objects = snapshot.objects
        for kind, key, found in self.seen:  # noqa: SIM110  twice as fast as `all`, and done for each route
            if objects.get(kind, _EMPTY).get(key) is not found:
                return False
        return True


@dataclass(frozen=True)
class Translation:
    """What came of a snapshot. What stands behind it is for the next, which takes it over where it is the same.

    surroundings: all that any route may depend on beside itself and what it refers to. addresses: those given out, by
    gateway and UID; ingresses' by `_INGRESSES`. They are kept before their statuses say so.
    """

    configuration: config.Configuration
    statuses: Sequence[StatusOf]
    backends: Mapping[str, Filled] = field(default_factory=dict)
    routes: Mapping[tuple[str, Key], _Made] = field(default_factory=dict)
    surroundings: object = None
    addresses: Mapping[tuple[Key, str], Sequence[str]] = field(default_factory=dict)


@dataclass
class _Door:
    """A gateway of ours, with all that is known of it."""

    gateway: Gateway
    assigned: Assigned
    conditions: Conditions
    own: list[Bound] = field(default_factory=list)
    sets: list[tuple[ListenerSet, Conditions, list[Bound]]] = field(default_factory=list)

    @property
    def listeners(self) -> list[Bound]:
        """All listeners, in the order in which they have precedence."""
        return [*self.own, *(bound for _, _, found in self.sets for bound in found)]

    @property
    def has_selector(self) -> bool:
        """Whether a listener takes routes of namespaces by their labels."""
        return any(each.spec.allowed_routes.namespaces.from_ == "Selector" for each in self.listeners)


def translate(snapshot: Snapshot, options: Options | None = None, previous: Translation | None = None) -> Translation:
    """Return the configuration that a snapshot asks for, and what the statuses of its objects should say.

    previous: another translation; what was made of objects that are the same by now is taken over.
    """
    return _Translator(snapshot, options or Options(), previous or _NOTHING).run()


_INGRESSES: Final = (("", ""), "")
_NOTHING: Final = Translation(config.Configuration(), ())


def _who(gateway: Gateway) -> tuple[Key, str]:
    return key_of(gateway), gateway.metadata.uid


class _Translator:
    def __init__(self, snapshot: Snapshot, options: Options, previous: Translation) -> None:
        self._previous = previous
        self._before: Mapping[tuple[str, Key], _Made] = {}
        self._made: dict[tuple[str, Key], _Made] = {}
        self._snapshot = snapshot
        self._options = options
        self._pool = Pool(options.addresses)
        self._backends = Backends(snapshot, may_leave=options.may_leave)
        self._statuses: list[StatusOf] = []
        self._parents = Parents(policies=policies_of(snapshot))
        self._certificates: dict[str, config.Certificate] = {}

    def run(self) -> Translation:
        ingresses = ingresses_of(self._snapshot)
        doors, kept = self._doors(ingresses)
        for door in doors:
            self._open(door)
        self._share_ports(doors)
        for door in doors:
            for bound in door.listeners:
                finish(bound)
            self._register(door)
        surroundings = self._surroundings(doors)
        if surroundings == self._previous.surroundings:
            self._before = self._previous.routes
        http, streams = self._routes(doors)
        listeners = [
            made
            for door in doors
            for bound in door.listeners
            if bound.is_programmed
            for made in bound.configured(door.assigned.bound)
        ]
        addresses = {_who(door.gateway): door.assigned.bound for door in doors}
        if ingresses:
            assigned = kept or self._pool.fresh()
            addresses[_INGRESSES] = assigned.bound
            entry = Entry(assigned, self._options.ingress_ports, self._options.refused)
            routes, statuses = translate_ingresses(
                self._snapshot, ingresses, self._backends, entry, self._certificates, listeners
            )
            http += [plain(each) for each in routes]
            self._statuses += statuses
        self._say(doors)
        filled = self._backends.filled(self._previous.backends)
        configuration = msgspec.structs.replace(
            plain(self._configured(listeners, doors)),
            routes=tuple(http),
            streams=tuple(streams),
            backends={name: each.backend for name, each in filled.items()},
        )
        return Translation(configuration, self._statuses, filled, self._made, surroundings, addresses)

    # Gateways

    def _doors(self, ingresses: Sequence[Ingress]) -> tuple[list[_Door], Assigned | None]:
        """Return the gateways with their addresses, and the address that ingresses had before, where they had one."""
        ours: set[str] = set()
        for each in self._snapshot.all(GatewayClass):
            if each.spec.controller_name == CONTROLLER and self._accept_class(each):
                ours.add(each.metadata.name)
        gateways = [each for each in self._snapshot.all(Gateway) if each.spec.gateway_class_name in ours]
        doors: dict[Key, _Door] = {}

        def assign(step: Callable[[Gateway], Assigned | None]) -> None:
            for gateway in gateways:
                if key_of(gateway) not in doors and (assigned := step(gateway)) is not None:
                    doors[key_of(gateway)] = _Door(gateway, assigned, Conditions(gateway.metadata.generation))

        assign(self._asked)
        assign(self._kept)
        said = [at.ip for each in ingresses for at in each.status.load_balancer.ingress]
        kept = self._pool.kept([*self._previous.addresses.get(_INGRESSES, ()), *said] if ingresses else ())
        assign(lambda _: self._pool.fresh())
        return [doors[key_of(each)] for each in gateways], kept

    def _asked(self, gateway: Gateway) -> Assigned | None:
        return self._pool.asked([(each.type, each.value) for each in gateway.spec.addresses])

    def _kept(self, gateway: Gateway) -> Assigned | None:
        before = self._previous.addresses.get(_who(gateway), ())
        return self._pool.kept([*before, *(each.value for each in gateway.status.addresses)])

    def _accept_class(self, found: GatewayClass) -> bool:
        said = Conditions(found.metadata.generation)
        if found.spec.parameters_ref is not None:
            said.fail("Accepted", "InvalidParameters", "spec.parametersRef is not supported; leave it out")
        said.default("Accepted", True, "Accepted")
        said.default("SupportedVersion", True, "SupportedVersion")
        fields = {"conditions": said.listed(), "supportedFeatures": [{"name": name} for name in FEATURES]}
        self._statuses.append(StatusOf(GatewayClass, "", found.metadata.name, fields))
        return said.is_true("Accepted")

    def _open(self, door: _Door) -> None:
        gateway, key, said = door.gateway, key_of(door.gateway), door.conditions
        if gateway.spec.infrastructure is not None and gateway.spec.infrastructure.parameters_ref is not None:
            message = "spec.infrastructure.parametersRef is not supported; leave it out"
            said.fail("Accepted", "InvalidParameters", message)
        if door.assigned.unsupported:
            said.fail("Accepted", "UnsupportedAddress", door.assigned.unsupported)
        elif door.assigned.unusable:
            message = f"address {door.assigned.unusable} is none of this gateway's"
            said.fail("Programmed", "AddressNotUsable", message)
        elif not door.assigned.bound:
            said.fail("Programmed", "AddressNotAssigned", "there is no address left; give the gateway more")
        door.own = bind(gateway, key, door.assigned.bound)
        self._add_sets(door)
        for bound in door.listeners:
            judge(self._snapshot, bound, gateway)
        resolve_conflicts(door.listeners)
        for bound in door.listeners:
            refused = next((self._options.refused[name] for name in bound.names if name in self._options.refused), "")
            if refused:
                bound.conditions.fail("Accepted", "PortUnavailable", refused)
            if said.is_false("Accepted"):
                bound.conditions.fail("Programmed", "Invalid", "the gateway is not accepted")
        self._show_certificate(door)

    def _add_sets(self, door: _Door) -> None:
        gateway = door.gateway
        allowed = gateway.spec.allowed_listeners
        which = allowed.namespaces.from_ if allowed is not None else "None"
        selector = allowed.namespaces.selector if allowed is not None else None
        for each in self._snapshot.all(ListenerSet):
            ref = each.spec.parent_ref
            target = (ref.namespace or each.metadata.namespace, ref.name)
            if (ref.group, ref.kind) != (GROUP, "Gateway") or target != key_of(gateway):
                continue
            said = Conditions(each.metadata.generation)
            own, namespace = gateway.metadata.namespace, each.metadata.namespace
            if allows_namespace(self._snapshot, which, selector, own, namespace):
                door.sets.append((each, said, bind(each, key_of(gateway), door.assigned.bound)))
                continue
            message = f"Gateway '{'/'.join(target)}' allows no ListenerSets of namespace '{namespace}'"
            said.fail("Accepted", "NotAllowed", message)
            said.fail("Programmed", "NotAllowed", message)
            fields = {"conditions": said.listed(), "listeners": []}
            self._statuses.append(StatusOf(ListenerSet, *key_of(each), fields))

    def _show_certificate(self, door: _Door) -> None:
        tls = door.gateway.spec.tls
        if tls is None or tls.backend is None or tls.backend.client_certificate_ref is None:
            return
        source = (GROUP, "Gateway", door.gateway.metadata.namespace)
        try:
            name, certificate = certificate_of(
                self._snapshot, tls.backend.client_certificate_ref, source, "InvalidClientCertificateRef"
            )
        except Problem as problem:
            door.conditions.fail("ResolvedRefs", problem.reason, problem.message)
            return
        self._certificates[name] = certificate
        self._parents.certificates[key_of(door.gateway)] = name

    def _share_ports(self, doors: Sequence[_Door]) -> None:
        """Refuse listeners whose port another gateway has at the same address; the older gateway keeps it."""
        owners: dict[tuple[str, int], Key] = {}
        for door in doors:
            key = key_of(door.gateway)
            for bound in door.listeners:
                if not bound.is_programmed:
                    continue
                places = [(address, bound.spec.port) for address in door.assigned.bound]
                other = next((owners[place] for place in places if owners.get(place, key) != key), None)
                if other is None:
                    owners.update(dict.fromkeys(places, key))
                    continue
                message = f"port {bound.spec.port} is Gateway '{'/'.join(other)}''s; use another port or more addresses"
                bound.conditions.fail("Accepted", "PortUnavailable", message)

    def _register(self, door: _Door) -> None:
        namespace, name = key_of(door.gateway)
        self._parents.listeners["Gateway", namespace, name] = door.own
        for each, _, found in door.sets:
            self._parents.listeners["ListenerSet", *key_of(each)] = found
        for bound in door.listeners:
            if bound.is_programmed:
                self._certificates.update(bound.certificates)

    # Routes

    def _surroundings(self, doors: Sequence[_Door]) -> tuple[object, ...]:
        bounds = [
            (_place(each), each.gateway, each.names, each.spec, each.kinds, each.is_accepted, each.is_programmed)
            for door in doors
            for each in door.listeners
        ]
        by_labels = any(door.has_selector for door in doors)
        labels = {each.metadata.name: each.metadata.labels for each in self._snapshot.all(Namespace) if by_labels}
        mine = bounds, labels, self._parents.certificates, self._options.may_leave
        return *mine, *self._backends.surroundings

    def _routes(self, doors: Sequence[_Door]) -> tuple[list[config.HttpRoute], list[config.StreamRoute]]:
        http: list[config.HttpRoute] = []
        streams: list[config.StreamRoute] = []
        places = {_place(bound): bound for door in doors for bound in door.listeners}
        for kind in _ROUTES:
            for route in self._snapshot.all(kind):
                made = self._route(route)
                http += made.http
                streams += made.streams
                if made.status is not None:
                    self._statuses.append(made.status)
                for place in made.places:
                    places[place].attached += 1
        return http, streams

    def _route(self, route: AnyRoute) -> _Made:
        key = (route.gvk[2], key_of(route))
        made, policy = self._before.get(key), self._parents.policies.get(key)
        if made is not None and made.is_good(route, policy, self._snapshot):
            self._backends.take(made.plans, made.secured)
        else:
            made = self._compiled(route, policy)
        self._made[key] = made
        return made

    def _compiled(self, route: AnyRoute, policy: TrafficPolicy | None) -> _Made:
        attached = attach(self._snapshot, route, self._parents)
        if not attached.parents:
            return _Made(route, policy, (), (), None, (), {}, (), ())
        backends = self._backends
        backends.begin()
        http, streams = compiled(backends, attached, self._parents)
        status = attached.status()
        places = [
            _place(bound)
            for _, conditions, found in attached.parents
            for bound in found
            if conditions.is_true("Accepted")
        ]
        plans = {name: backends.plans[name] for name in backends.used}
        exact = [plain(each) for each in http], [plain(each) for each in streams]
        return _Made(route, policy, *exact, status, places, plans, backends.secured, backends.seen)

    # What is said

    def _say(self, doors: Sequence[_Door]) -> None:
        for door in doors:
            for each, said, found in door.sets:
                self._say_of_set(each, said, found)
            self._say_of_gateway(door)
        self._statuses += policy_statuses(self._snapshot)
        for tls in self._backends.policies:
            winner = self._backends.rivals.get(id(tls), tls)
            if not winner.ancestors:
                continue
            tls.conditions.default("Accepted", True, "Accepted")
            tls.conditions.default("ResolvedRefs", True, "ResolvedRefs")
            entries = [_ancestor(key, tls.conditions) for key in winner.ancestors]
            self._statuses.append(StatusOf(BackendTLSPolicy, *key_of(tls.policy), shared=("ancestors", entries)))

    def _say_of_set(self, each: ListenerSet, said: Conditions, found: Sequence[Bound]) -> None:
        if not any(bound.is_programmed for bound in found):
            said.fail("Accepted", "ListenersNotValid", "none of the listeners can be used")
            said.fail("Programmed", "ListenersNotValid", "none of the listeners can be used")
        some = "Accepted" if all(bound.is_programmed for bound in found) else "ListenersNotValid"
        said.default("Accepted", True, some)
        said.default("Programmed", True, "Programmed")
        fields = {"conditions": said.listed(), "listeners": [bound.status() for bound in found]}
        self._statuses.append(StatusOf(ListenerSet, *key_of(each), fields))

    def _say_of_gateway(self, door: _Door) -> None:
        said, listeners = door.conditions, door.own
        if not any(bound.is_accepted for bound in listeners):
            said.fail("Accepted", "ListenersNotValid", "none of the listeners can be used")
        bad = next((bound.spec.name for bound in listeners if not bound.is_accepted), "")
        said.default(
            "Accepted", True, "ListenersNotValid" if bad else "Accepted", f"see listener '{bad}'" if bad else ""
        )
        if said.is_false("Accepted"):
            said.fail("Programmed", "Invalid", "the gateway is not accepted")
        elif not any(bound.is_programmed for bound in door.listeners):
            said.fail("Programmed", "Invalid", "none of the listeners can be used")
        if self._options.failure:
            said.fail("Programmed", "Invalid", self._options.failure)
        said.default("Programmed", True, "Programmed")
        said.default("ResolvedRefs", True, "ResolvedRefs")
        if any(bound.is_insecure for bound in door.listeners):
            said.set(
                "InsecureFrontendValidationMode", True, "ConfigurationChanged", "clients need no valid certificate"
            )
        taken = sum(1 for _, conditions, _ in door.sets if conditions.is_true("Accepted"))
        fields = {
            "addresses": [{"type": "IPAddress", "value": address} for address in door.assigned.shown],
            "conditions": said.listed(),
            "listeners": [bound.status() for bound in listeners],
            "attachedListenerSets": taken,
        }
        self._statuses.append(StatusOf(Gateway, *key_of(door.gateway), fields))

    # The whole

    def _configured(self, listeners: Sequence[config.Listener], doors: Sequence[_Door]) -> config.Configuration:
        """Return all but routes and backends."""
        settings, proxied = of_gateways(self._snapshot, {key_of(door.gateway) for door in doors})
        owners = {name: key_of(door.gateway) for door in doors for bound in door.listeners for name in bound.names}
        return config.Configuration(
            listeners=tuple(
                msgspec.structs.replace(
                    each,
                    has_proxy_protocol=bool(proxied) and each.name.startswith(proxied),
                    settings="/".join(owners[each.name]) if owners.get(each.name) in settings else "",
                )
                for each in listeners
            ),
            certificates=dict(self._certificates),
            settings={"/".join(key): found for key, found in settings.items()},
        )


def _place(bound: Bound) -> Place:
    return bound.owner.gvk[2], key_of(bound.owner), bound.spec.name


def _ancestor(key: Key, conditions: Conditions) -> dict[str, Any]:
    from .kinds.common import ParentReference  # noqa: PLC0415  beside its only use

    ref = ParentReference(group=GROUP, kind="Gateway", namespace=key[0], name=key[1])
    return {"ancestorRef": to_dict(ref), "controllerName": CONTROLLER, "conditions": conditions.listed()}
