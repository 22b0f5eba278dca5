"""BackendTLSPolicy of Gateway API, and our own kinds: weights by region, and what Gateway API has no place for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pilothouse.kinds.structs import Condition, Resource, Struct, field
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

from .common import (
    GROUP,
    Controller,
    Duration,
    Group,
    Hostname,
    Kind,
    LocalReference,
    Name,
    Options,
    ParentReference,
    Port,
    PreciseHostname,
    SectionName,
)

__all__ = ["OWN_GROUP", "BackendTLSPolicy", "RegionWeights", "TargetRef", "TrafficPolicy"]

OWN_GROUP: Final = "pilothouse.dev"
_AGE: Final = PrinterColumn("Age", ".metadata.creationTimestamp")


class TargetRef(Struct):
    """What a policy is about, or a named part of it."""

    group: Group
    kind: Kind
    name: Name
    section_name: SectionName | None = None


class AncestorStatus(Struct):
    """What one controller says of a policy, for one gateway that it matters to."""

    ancestor_ref: ParentReference
    controller_name: Controller
    conditions: Annotated[Sequence[Condition], ListType("map", keys=("type",)), MinLength(1), MaxLength(8)] = ()


class PolicyStatus(Struct):
    """What controllers say of a policy."""

    ancestors: Annotated[Sequence[AncestorStatus], ListType("atomic"), MaxLength(16)] = ()


@Rule(
    "(self.type == 'Hostname') == (has(self.hostname) && self.hostname != '')",
    message="hostname goes with type Hostname",
)
@Rule("(self.type == 'URI') == (has(self.uri) && self.uri != '')", message="uri goes with type URI")
class SubjectAltName(Struct):
    """A name of which one has to be in a backend's certificate."""

    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: Annotated[
        str | None,
        MinLength(1),
        MaxLength(253),
        Pattern(r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?"),
    ] = None


_REFS: Final = "(has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0)"
_KNOWN: Final = "(has(self.wellKnownCACertificates) && self.wellKnownCACertificates != '')"


@Rule(f"!({_REFS} && {_KNOWN})", message="must not contain both CACertificateRefs and WellKnownCACertificates")
@Rule(f"{_REFS} || {_KNOWN}", message="must specify either CACertificateRefs or WellKnownCACertificates")
class Validation(Struct):
    """How a backend's certificate is checked."""

    ca_certificate_refs: Annotated[Sequence[LocalReference], ListType("atomic"), MaxLength(8)] = field(
        default=(), name="caCertificateRefs"
    )
    well_known_ca_certificates: Annotated[str | None, MinLength(1), MaxLength(253)] = field(
        default=None, name="wellKnownCACertificates"
    )
    hostname: PreciseHostname
    subject_alt_names: Annotated[Sequence[SubjectAltName], ListType("atomic"), MaxLength(5)] = ()


_SAME: Final = "one.group == other.group && one.kind == other.kind && one.name == other.name"
_SECTION: Final = "(has({0}.sectionName) ? {0}.sectionName : '')"
TargetRefs = Annotated[
    Sequence[TargetRef],
    ListType("atomic"),
    MinLength(1),
    MaxLength(16),
    Rule(
        f"self.all(one, self.all(other, !({_SAME}) || "
        f"({_SECTION.format('one')} == '') == ({_SECTION.format('other')} == '')))",
        message="sectionName must be specified when targetRefs includes 2 or more references to the same target",
    ),
    Rule(
        f"self.all(one, self.exists_one(other, {_SAME} && {_SECTION.format('one')} == {_SECTION.format('other')}))",
        message="sectionName must be unique when targetRefs includes 2 or more references to the same target",
    ),
]


class BackendTLSPolicySpec(Struct):
    """`spec` of BackendTLSPolicy."""

    target_refs: TargetRefs
    validation: Validation
    options: Options = {}  # noqa: RUF012


@custom_resource(short_names=["btlspolicy"], categories=["gateway-api"], columns=[_AGE])
class BackendTLSPolicy(Resource, group=GROUP, version="v1", plural="backendtlspolicies"):
    """How a Service is reached by TLS."""

    spec: BackendTLSPolicySpec
    status: PolicyStatus = PolicyStatus()


# Our own


class RegionBackend(Struct):
    """A backend of the rule, by its name and port, and the weight that it has here."""

    name: Name
    port: Port | None = None
    weight: Annotated[int, Minimum(0), Maximum(1_000_000)]


class RegionShare(Struct):
    """Other weights for clients of some regions."""

    regions: Annotated[Sequence[Annotated[str, MinLength(1), MaxLength(63)]], MinLength(1), MaxLength(64)]
    backends: Annotated[Sequence[RegionBackend], MinLength(1), MaxLength(16)]


class RegionWeightsSpec(Struct):
    """`spec` of RegionWeights."""

    weights: Annotated[Sequence[RegionShare], MinLength(1), MaxLength(64)]


@custom_resource(short_names=["rweights"], categories=["pilothouse"], columns=[_AGE])
class RegionWeights(Resource, group=OWN_GROUP, version="v1alpha1", plural="regionweights"):
    """A filter (ExtensionRef) of a rule: weights of its backends that hold for clients of some regions."""

    spec: RegionWeightsSpec


class LocalSecret(Struct):
    """A Secret of the policy's namespace."""

    name: Name


@Rule("!(has(self.store) && self.store != '' && has(self.storeRef))", message="store and storeRef are not given both")
class RateLimitSpec(Struct):
    """At most so many requests a second, with bursts. by: "address" or a header, empty for all together.

    away: what holds while the store does not answer: Local for the limit of each gateway alone, Allow for none, Deny
    for 503. storeTimeout: how long a request waits for it.
    """

    requests_per_second: Annotated[int, Minimum(1)]
    burst: Annotated[int, Minimum(1)] = 1
    by: Annotated[str, MaxLength(256)] = ""
    store: Annotated[str, MaxLength(253)] = ""
    """URL of a Redis that several gateways share."""
    store_ref: LocalSecret | None = None
    """A Secret with that URL in `url`, where it holds a password."""
    store_timeout: Duration = "250ms"
    away: Literal["Local", "Allow", "Deny"] = "Local"


class StickinessSpec(Struct):
    """Send a client where it was sent before: to the same backend, or to the same endpoint of it.

    type: by a cookie, by the hash of a header, or by a header (Token) that answers have and clients send again.
    """

    type: Literal["Cookie", "Header", "Token"] = "Cookie"
    to: Literal["Backend", "Endpoint"] = "Backend"
    name: Annotated[str, MinLength(1), MaxLength(128)] = "pilothouse-session"
    lifetime: Duration | None = None
    idle: Duration | None = None


class HealthSpec(Struct):
    """Ask each endpoint now and then; by a GET of `path`, or by a connection alone."""

    path: Annotated[str, MaxLength(1024)] = ""
    interval: Duration = "5s"
    timeout: Duration = "1s"
    healthy: Annotated[int, Minimum(1)] = 2
    unhealthy: Annotated[int, Minimum(1)] = 3


class OutlierSpec(Struct):
    """Leave out an endpoint that failed so often in a row, for so long."""

    failures: Annotated[int, Minimum(1)] = 5
    duration: Duration = "30s"
    most_percent: Annotated[int, Minimum(0), Maximum(100)] = 50


class CircuitSpec(Struct):
    """What a backend is spared; beyond it requests get 503 at once."""

    connections: Annotated[int, Minimum(1)] = 1024
    requests: Annotated[int, Minimum(1)] = 4096
    waiting: Annotated[int, Minimum(0)] = 1024


class RangeSpec(Struct):
    """Clients of an address range, and their region."""

    cidr: Annotated[str, MinLength(1), MaxLength(64)]
    region: Annotated[str, MinLength(1), MaxLength(63)]


class RegionsSpec(Struct):
    """How a client's region is known: by a header of trusted proxies, else by the longest range."""

    header: Annotated[str, MaxLength(256)] = ""
    trusted: Annotated[Sequence[str], MaxLength(256)] = ()
    ranges: Annotated[Sequence[RangeSpec], MaxLength(10_000)] = ()
    default: Annotated[str, MaxLength(63)] = ""


class LimitsSpec(Struct):
    """What one client of a gateway may cost."""

    body_bytes: Annotated[int, Minimum(0)] = 0
    head_bytes: Annotated[int, Minimum(1024)] = 65_536
    connections: Annotated[int, Minimum(1)] = 20_000


class TrafficPolicySpec(Struct):
    """`spec` of TrafficPolicy.

    Of routes: rate_limit, stickiness. Of Services: health_check to slow_start. Of a Gateway: regions and all below it.
    """

    target_refs: TargetRefs
    rate_limit: RateLimitSpec | None = None
    stickiness: StickinessSpec | None = None
    health_check: HealthSpec | None = None
    outlier_ejection: OutlierSpec | None = None
    circuit_breaker: CircuitSpec | None = None
    slow_start: Duration | None = None
    regions: RegionsSpec | None = None
    limits: LimitsSpec | None = None
    trusted_proxies: Annotated[Sequence[str], MaxLength(256)] = ()
    proxy_protocol: bool = False
    session_key_ref: LocalSecret | None = None
    """A Secret whose `key` (32 bytes and more) seals sessions; what was sealed by its `previous` is still known."""


@custom_resource(short_names=["tpolicy"], categories=["pilothouse"], columns=[_AGE])
class TrafficPolicy(Resource, group=OWN_GROUP, version="v1alpha1", plural="trafficpolicies"):
    """What Gateway API has no place for: limits, stickiness and health of routes, Services and Gateways."""

    spec: TrafficPolicySpec
    status: PolicyStatus = PolicyStatus()
