"""Listeners of gateways and of sets that add to them: which are taken, which conflict, what their conditions are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from pilothouse.kinds.labels import from_label_selector
from pilothouse.kinds.structs import LabelSelector, to_dict
from pilothouse.traffic.config import Certificate, ListenerTls
from pilothouse.traffic.config import Listener as Configured

from .certificates import Problem, authority_of, certificate_of
from .conditions import Conditions
from .kinds.common import GROUP, RouteKind
from .kinds.gateways import FrontendTls, Gateway, Listener, ListenerSet
from .snapshot import Key, Snapshot, key_of

__all__ = ["Bound", "allows_namespace", "bind", "finish", "judge", "resolve_conflicts"]

_KINDS: Final = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
}
_FAMILY: Final = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP"}
"""What can share a port: connections that begin with a TLS greeting are told apart by the name in it."""


@dataclass
class Bound:
    """A listener of a gateway, its own or of a set. names: in the configuration, one an address."""

    owner: Gateway | ListenerSet
    gateway: Key
    spec: Listener
    names: tuple[str, ...]
    conditions: Conditions
    kinds: tuple[str, ...] = ()
    tls: ListenerTls | None = None
    certificates: dict[str, Certificate] = field(default_factory=dict)
    attached: int = 0
    is_insecure: bool = False

    @property
    def is_accepted(self) -> bool:
        """Whether routes may attach to it."""
        return not self.conditions.is_false("Accepted")

    @property
    def is_programmed(self) -> bool:
        """Whether the data plane is told of it."""
        return self.is_accepted and not self.conditions.is_false("Programmed")

    @property
    def hostname(self) -> str:
        """Its host name in lower case, empty for all."""
        return (self.spec.hostname or "").lower()

    def configured(self, addresses: Sequence[str]) -> list[Configured]:
        """Return what the data plane is told of it."""
        protocol = cast("Literal['HTTP', 'HTTPS', 'TLS', 'TCP']", self.spec.protocol)
        return [
            Configured(
                name=name,
                port=self.spec.port,
                protocol=protocol,
                address=address,
                hostname=self.hostname,
                tls=self.tls,
            )
            for name, address in zip(self.names, addresses, strict=True)
        ]

    def status(self) -> dict[str, Any]:
        """Return what the status of its owner says of it."""
        return {
            "name": self.spec.name,
            "supportedKinds": [{"group": GROUP, "kind": kind} for kind in self.kinds],
            "attachedRoutes": self.attached,
            "conditions": self.conditions.listed(),
        }


def bind(owner: Gateway | ListenerSet, gateway: Key, addresses: Sequence[str]) -> list[Bound]:
    """Return the listeners of a gateway or set, of which nothing is known yet."""
    prefix = "/".join(key_of(owner)) if isinstance(owner, Gateway) else f"{'/'.join(gateway)}+{'/'.join(key_of(owner))}"
    made: list[Bound] = []
    for spec in owner.spec.listeners:
        name = f"{prefix}/{spec.name}"
        names = tuple(f"{name}@{address}" for address in addresses) if len(addresses) > 1 else (name,) * len(addresses)
        made.append(Bound(owner, gateway, spec, names, Conditions(owner.metadata.generation)))
    return made


def judge(snapshot: Snapshot, bound: Bound, gateway: Gateway) -> None:
    """Find out what a listener supports, and whether what it refers to can be used."""
    protocol = bound.spec.protocol
    if protocol not in _KINDS:
        message = f"protocol '{protocol}' is not supported; use one of {', '.join(_KINDS)}"
        bound.conditions.fail("Accepted", "UnsupportedProtocol", message)
        return
    bound.kinds, odd = _kinds_of(protocol, bound.spec.allowed_routes.kinds)
    if odd:
        message = f"routes of kind '{odd}' cannot attach to a listener of protocol '{protocol}'"
        bound.conditions.fail("ResolvedRefs", "InvalidRouteKinds", message)
    if protocol == "HTTPS" or (protocol == "TLS" and bound.spec.tls is not None and bound.spec.tls.mode == "Terminate"):
        _find_certificates(snapshot, bound)
        if gateway.spec.tls is not None and gateway.spec.tls.frontend is not None and protocol == "HTTPS":
            _find_authorities(snapshot, bound, gateway)


def _kinds_of(protocol: str, wanted: Sequence[RouteKind]) -> tuple[tuple[str, ...], str]:
    """Return the kinds that may attach, and one that was asked for but cannot."""
    able = _KINDS[protocol]
    if not wanted:
        return able, ""
    odd = next((one.kind for one in wanted if one.group != GROUP or one.kind not in able), "")
    return tuple(dict.fromkeys(one.kind for one in wanted if one.group == GROUP and one.kind in able)), odd


def _find_certificates(snapshot: Snapshot, bound: Bound) -> None:
    source = (GROUP, bound.owner.gvk[2], bound.owner.metadata.namespace)
    refs = bound.spec.tls.certificate_refs if bound.spec.tls is not None else ()
    if not refs:
        bound.conditions.fail("ResolvedRefs", "InvalidCertificateRef", "tls.certificateRefs is empty; name a Secret")
    for ref in refs:
        try:
            name, certificate = certificate_of(snapshot, ref, source, "InvalidCertificateRef")
        except Problem as problem:
            bound.conditions.fail("ResolvedRefs", problem.reason, problem.message)
        else:
            bound.certificates[name] = certificate
    if not bound.certificates:
        bound.conditions.fail("Programmed", "Invalid", "there is no certificate that can be used")
    alpn = ("h2", "http/1.1") if bound.spec.protocol == "HTTPS" else ()
    bound.tls = ListenerTls(certificates=tuple(bound.certificates), alpn=alpn)


def _find_authorities(snapshot: Snapshot, bound: Bound, gateway: Gateway) -> None:
    validation = _frontend_of(gateway, bound.spec.port).validation
    if validation is None or bound.tls is None:
        return
    source = (GROUP, "Gateway", gateway.metadata.namespace)
    found, problems = authority_of(
        snapshot,
        validation.ca_certificate_refs,
        source,
        bad_kind="InvalidCACertificateKind",
        invalid="InvalidCACertificateRef",
    )
    for problem in problems:
        bound.conditions.fail("ResolvedRefs", problem.reason, problem.message)
    if not found:
        bound.conditions.fail("Accepted", "NoValidCACertificate", problems[0].message)
        bound.conditions.fail("Programmed", "Invalid", problems[0].message)
        return
    bound.is_insecure = validation.mode == "AllowInsecureFallback"
    is_strict = not bound.is_insecure
    bound.tls = ListenerTls(
        certificates=bound.tls.certificates,
        client_ca=found,
        is_client_required=is_strict,
        is_client_checked=is_strict,
        alpn=bound.tls.alpn,
    )


def _frontend_of(gateway: Gateway, port: int) -> FrontendTls:
    frontend = gateway.spec.tls.frontend if gateway.spec.tls is not None else None
    if frontend is None:
        return FrontendTls()
    return next((each.tls for each in frontend.per_port if each.port == port), frontend.default)


def resolve_conflicts(listeners: Iterable[Bound]) -> None:
    """Refuse listeners of one gateway that another before them leaves no place for."""
    families: dict[int, str] = {}
    taken: set[tuple[int, str]] = set()
    for bound in listeners:
        family = _FAMILY.get(bound.spec.protocol)
        if family is None or not bound.is_accepted:
            continue
        port, hostname = bound.spec.port, bound.hostname
        if families.setdefault(port, family) != family:
            _conflict(bound, "ProtocolConflict", f"port {port} is for {families[port]} already, not {family}")
        elif (port, hostname) in taken:
            _conflict(bound, "HostnameConflict", f"port {port} has a listener for '{hostname or '*'}' already")
        else:
            taken.add((port, hostname))


def _conflict(bound: Bound, reason: str, message: str) -> None:
    bound.conditions.set("Conflicted", True, reason, message)
    bound.conditions.fail("Accepted", reason, message)
    bound.conditions.fail("Programmed", reason, message)


def finish(bound: Bound) -> None:
    """Say the conditions that nothing spoke against."""
    said = bound.conditions
    said.default("Accepted", True, "Accepted")
    said.default("Conflicted", False, "NoConflicts")
    said.default("ResolvedRefs", True, "ResolvedRefs")
    if not bound.is_accepted:
        said.fail("Programmed", "Invalid", "the listener is not accepted")
    said.default("Programmed", True, "Programmed")


def allows_namespace(snapshot: Snapshot, which: str, selector: LabelSelector | None, own: str, namespace: str) -> bool:
    """Say whether what is in a namespace may attach. which: All, Same, Selector or None; own: the listener's."""
    if which == "All":
        return True
    if which == "Same":
        return namespace == own
    if which == "Selector" and selector is not None:
        return from_label_selector(to_dict(selector)).matches(snapshot.labels_of(namespace))
    return False
