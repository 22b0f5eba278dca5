"""GatewayClass, Gateway, ListenerSet and ReferenceGrant as Gateway API 1.6 has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pilothouse.kinds.structs import LabelSelector, Resource, Struct, field
from pilothouse.operator import (
    ListType,
    Maximum,
    MaxLength,
    Minimum,
    MinLength,
    Pattern,
    PrinterColumn,
    Rule,
    custom_resource,
)
from pilothouse.operator.crd_markers import Default

from .common import (
    GROUP,
    AllowedRoutes,
    Conditions,
    Controller,
    Group,
    Hostname,
    Kind,
    Name,
    Namespace,
    ObjectReference,
    Options,
    Port,
    RouteKind,
    SecretReference,
    SectionName,
    waiting,
)

__all__ = [
    "Address",
    "Gateway",
    "GatewayClass",
    "Listener",
    "ListenerSet",
    "ListenerStatus",
    "ReferenceGrant",
]

_AGE: Final = PrinterColumn("Age", ".metadata.creationTimestamp")
_DNS: Final = r"^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"


def _condition(kind: str) -> PrinterColumn:
    return PrinterColumn(kind, f'.status.conditions[?(@.type=="{kind}")].status', type="string")


# Classes


class ParametersReference(Struct):
    """Where a class has parameters."""

    group: Group
    kind: Kind
    name: Name
    namespace: Namespace | None = None


class GatewayClassSpec(Struct):
    """`spec` of GatewayClass."""

    controller_name: Annotated[Controller, Rule("self == oldSelf", message="Value is immutable")]
    parameters_ref: ParametersReference | None = None
    description: Annotated[str, MaxLength(64)] = ""


class SupportedFeature(Struct):
    """One thing that the suite of Gateway API knows by name."""

    name: str


class GatewayClassStatus(Struct):
    """`status` of GatewayClass."""

    conditions: Annotated[Conditions, waiting("Accepted")] = ()
    supported_features: Annotated[Sequence[SupportedFeature], ListType("map", keys=("name",)), MaxLength(128)] = ()


@custom_resource(
    short_names=["gc"],
    categories=["gateway-api"],
    columns=[
        PrinterColumn("Controller", ".spec.controllerName"),
        _condition("Accepted"),
        _AGE,
        PrinterColumn("Description", ".spec.description", priority=1),
    ],
)
class GatewayClass(Resource, group=GROUP, version="v1", plural="gatewayclasses", namespaced=False):
    """Gateways of one sort, and who looks after them."""

    spec: GatewayClassSpec
    status: Annotated[GatewayClassStatus, Default({"conditions": waiting("Accepted").value})] = GatewayClassStatus()


# Listeners


@Rule(
    "self.mode != 'Terminate' || (has(self.certificateRefs) && size(self.certificateRefs) > 0) || "
    "(has(self.options) && size(self.options) > 0)",
    message="certificateRefs or options must be specified when mode is Terminate",
)
class ListenerTls(Struct):
    """How a listener ends TLS, or passes it on."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: Annotated[Sequence[SecretReference], ListType("atomic"), MaxLength(64)] = ()
    options: Options = {}  # noqa: RUF012


Protocol = Annotated[
    str,
    MinLength(1),
    MaxLength(255),
    Pattern(
        r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$"
    ),
]


class Listener(Struct):
    """A port of a gateway, for a host name or all."""

    name: SectionName
    hostname: Hostname | None = None
    port: Port
    protocol: Protocol
    tls: ListenerTls | None = None
    allowed_routes: Annotated[AllowedRoutes, Default({"namespaces": {"from": "Same"}})] = AllowedRoutes()


_LISTENER_RULES: Final = (
    Rule(
        "self.all(one, !(one.protocol in ['HTTP', 'TCP', 'UDP']) || !has(one.tls))",
        message="tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
    ),
    Rule(
        "self.all(one, one.protocol != 'HTTPS' || !has(one.tls) || one.tls.mode in ['', 'Terminate'])",
        message="tls mode must be Terminate for protocol HTTPS",
    ),
    Rule(
        "self.all(one, one.protocol != 'TLS' || (has(one.tls) && has(one.tls.mode) && one.tls.mode != ''))",
        message="tls mode must be set for protocol TLS",
    ),
    Rule(
        "self.all(one, !(one.protocol in ['TCP', 'UDP']) || !has(one.hostname) || one.hostname == '')",
        message="hostname must not be specified for protocols ['TCP', 'UDP']",
    ),
    Rule(
        "self.all(one, self.exists_one(other, other.name == one.name))",
        message="Listener name must be unique within the Gateway",
    ),
    Rule(
        "self.all(one, self.exists_one(other, one.port == other.port && one.protocol == other.protocol && "
        "(has(one.hostname) ? one.hostname : '') == (has(other.hostname) ? other.hostname : '')))",
        message="Combination of port, protocol and hostname must be unique for each listener",
    ),
)
Listeners = Annotated[
    Sequence[Listener], ListType("map", keys=("name",)), MinLength(1), MaxLength(64), *_LISTENER_RULES
]


class ListenerStatus(Struct):
    """What there is to say of one listener."""

    name: SectionName
    supported_kinds: Annotated[Sequence[RouteKind], ListType("atomic"), MaxLength(8)] = ()
    attached_routes: int
    conditions: Conditions


# Gateways


@Rule(
    f"self.type != 'Hostname' || !has(self.value) || self.value == '' || self.value.matches('{_DNS}')",
    message="Hostname value must be empty or contain only valid characters",
)
@Rule(
    "self.type != 'IPAddress' || !has(self.value) || self.value == '' || isIP(self.value)",
    message="IPAddress value must be empty or an IP address",
)
class SpecAddress(Struct):
    """An address that is asked for."""

    type: Annotated[str, MinLength(1), MaxLength(253)] = "IPAddress"
    value: Annotated[str, MaxLength(253)] = ""


class Address(Struct):
    """An address that a gateway has."""

    type: Annotated[str, MinLength(1), MaxLength(253)] = "IPAddress"
    value: Annotated[str, MinLength(1), MaxLength(253)]


class LocalParameters(Struct):
    """Where a gateway has parameters of its own."""

    group: Group
    kind: Kind
    name: Name


class Infrastructure(Struct):
    """What is said of the things that a gateway is made of."""

    labels: Annotated[Mapping[str, Annotated[str, MaxLength(63)]], MaxLength(8)] = {}
    annotations: Annotated[Mapping[str, Annotated[str, MaxLength(4096)]], MaxLength(16)] = {}
    parameters_ref: LocalParameters | None = None


class ListenerNamespaces(Struct):
    """Of which namespaces ListenerSets may attach."""

    from_: Literal["All", "Selector", "Same", "None"] = field(default="None", name="from")
    selector: LabelSelector | None = None


class AllowedListeners(Struct):
    """Which ListenerSets may attach."""

    namespaces: Annotated[ListenerNamespaces, Default({"from": "None"})] = ListenerNamespaces()


class FrontendValidation(Struct):
    """How clients' certificates are checked."""

    ca_certificate_refs: Annotated[Sequence[ObjectReference], ListType("atomic"), MinLength(1), MaxLength(16)] = field(
        name="caCertificateRefs"
    )
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"


class FrontendTls(Struct):
    """TLS of clients."""

    validation: FrontendValidation | None = None


class FrontendTlsOfPort(Struct):
    """TLS of the clients of one port."""

    port: Port
    tls: FrontendTls


class Frontend(Struct):
    """TLS of clients: by default, and of ports that differ."""

    default: FrontendTls
    per_port: Annotated[Sequence[FrontendTlsOfPort], ListType("map", keys=("port",)), MaxLength(64)] = ()


class GatewayBackendTls(Struct):
    """How a gateway shows itself to backends."""

    client_certificate_ref: SecretReference | None = None


class GatewayTls(Struct):
    """TLS of a whole gateway."""

    backend: GatewayBackendTls | None = None
    frontend: Frontend | None = None


class GatewaySpec(Struct):
    """`spec` of Gateway."""

    gateway_class_name: Name
    listeners: Listeners
    addresses: Annotated[
        Sequence[SpecAddress],
        ListType("atomic"),
        MaxLength(16),
        Rule(
            "self.all(one, !has(one.value) || one.value == '' || "
            "self.exists_one(other, other.type == one.type && has(other.value) && other.value == one.value))",
            message="address values must be unique",
        ),
    ] = ()
    infrastructure: Infrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTls | None = None


class GatewayStatus(Struct):
    """`status` of Gateway."""

    addresses: Annotated[Sequence[Address], ListType("atomic"), MaxLength(16)] = ()
    conditions: Annotated[Conditions, waiting("Accepted", "Programmed")] = ()
    listeners: Annotated[Sequence[ListenerStatus], ListType("map", keys=("name",)), MaxLength(64)] = ()
    attached_listener_sets: Annotated[int | None, Minimum(0), Maximum(2**31 - 1)] = None


_PENDING: Final = Default({"conditions": waiting("Accepted", "Programmed").value})


@custom_resource(
    short_names=["gtw"],
    categories=["gateway-api"],
    columns=[
        PrinterColumn("Class", ".spec.gatewayClassName"),
        PrinterColumn("Address", ".status.addresses[*].value", type="string"),
        _condition("Programmed"),
        _AGE,
    ],
)
class Gateway(Resource, group=GROUP, version="v1", plural="gateways"):
    """Addresses and ports at which traffic comes in."""

    spec: GatewaySpec
    status: Annotated[GatewayStatus, _PENDING] = GatewayStatus()


# Sets of listeners


class ParentGateway(Struct):
    """The gateway that a set of listeners adds to."""

    group: Group = GROUP
    kind: Kind = "Gateway"
    name: Name
    namespace: Namespace | None = None


class ListenerSetSpec(Struct):
    """`spec` of ListenerSet."""

    parent_ref: ParentGateway
    listeners: Listeners


class ListenerSetStatus(Struct):
    """`status` of ListenerSet."""

    conditions: Annotated[Conditions, waiting("Accepted", "Programmed")] = ()
    listeners: Annotated[Sequence[ListenerStatus], ListType("map", keys=("name",)), MaxLength(64)] = ()


@custom_resource(
    short_names=["lset"], categories=["gateway-api"], columns=[_condition("Accepted"), _condition("Programmed"), _AGE]
)
class ListenerSet(Resource, group=GROUP, version="v1", plural="listenersets"):
    """More listeners of a gateway, kept by somebody else."""

    spec: ListenerSetSpec
    status: Annotated[ListenerSetStatus, _PENDING] = ListenerSetStatus()


# Grants


class GrantFrom(Struct):
    """Who may refer."""

    group: Group
    kind: Kind
    namespace: Namespace


class GrantTo(Struct):
    """What may be referred to, all of the kind where no name is given."""

    group: Group
    kind: Kind
    name: Name | None = None


class ReferenceGrantSpec(Struct):
    """`spec` of ReferenceGrant."""

    from_: Annotated[Sequence[GrantFrom], ListType("atomic"), MinLength(1), MaxLength(16)] = field(name="from")
    to: Annotated[Sequence[GrantTo], ListType("atomic"), MinLength(1), MaxLength(16)]


@custom_resource(short_names=["refgrant"], categories=["gateway-api"], columns=[_AGE])
class ReferenceGrant(Resource, group=GROUP, version="v1", plural="referencegrants"):
    """Who of other namespaces may refer to what is in this one."""

    spec: ReferenceGrantSpec
