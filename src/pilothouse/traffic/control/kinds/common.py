"""What kinds of Gateway API have in common: names, references, conditions of routes, filters' headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pilothouse.kinds.structs import Condition, LabelSelector, Struct, field
from pilothouse.operator import ListType, Maximum, MaxLength, Minimum, MinLength, Pattern, Rule
from pilothouse.operator.crd_markers import Default

__all__ = [
    "GROUP",
    "AllowedRoutes",
    "BackendReference",
    "Conditions",
    "Duration",
    "Header",
    "HeaderFilter",
    "HeaderName",
    "Hostname",
    "LocalReference",
    "Name",
    "ObjectReference",
    "Options",
    "ParentReference",
    "Port",
    "PreciseHostname",
    "RouteKind",
    "RouteNamespaces",
    "RouteParentStatus",
    "RouteStatus",
    "SecretReference",
    "SectionName",
    "waiting",
]

GROUP: Final = "gateway.networking.k8s.io"
_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"

Name = Annotated[str, MinLength(1), MaxLength(253)]
Group = Annotated[str, MaxLength(253), Pattern(f"^$|^{_DOMAIN}$")]
Kind = Annotated[str, MinLength(1), MaxLength(63), Pattern("^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")]
Namespace = Annotated[str, MinLength(1), MaxLength(63), Pattern(f"^{_LABEL}$")]
SectionName = Annotated[str, MinLength(1), MaxLength(253), Pattern(f"^{_DOMAIN}$")]
Hostname = Annotated[str, MinLength(1), MaxLength(253), Pattern(rf"^(\*\.)?{_DOMAIN}$")]
PreciseHostname = Annotated[str, MinLength(1), MaxLength(253), Pattern(f"^{_DOMAIN}$")]
HeaderName = Annotated[str, MinLength(1), MaxLength(256), Pattern(r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$")]
Duration = Annotated[str, Pattern("^([0-9]{1,5}(h|m|s|ms)){1,4}$")]
Port = Annotated[int, Minimum(1), Maximum(65535)]
Controller = Annotated[str, MinLength(1), MaxLength(253), Pattern(rf"^{_DOMAIN}\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$")]
Options = Annotated[Mapping[str, Annotated[str, MaxLength(4096)]], MaxLength(16)]
Conditions = Annotated[Sequence[Condition], ListType("map", keys=("type",)), MaxLength(8)]


def waiting(*types: str) -> Default:
    """Return what servers say of an object that no controller has looked at yet."""
    facts = {
        "status": "Unknown",
        "reason": "Pending",
        "message": "Waiting for controller",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }
    return Default([{"type": one, **facts} for one in types])


class LocalReference(Struct):
    """An object of the same namespace."""

    group: Group
    kind: Kind
    name: Name


class ObjectReference(Struct):
    """An object, of the same namespace where none is named."""

    group: Group
    kind: Kind
    name: Name
    namespace: Namespace | None = None


class SecretReference(Struct):
    """A Secret, of the same namespace where none is named."""

    group: Annotated[Group, Default("")] = ""
    kind: Kind = "Secret"
    name: Name
    namespace: Namespace | None = None


@Rule("self.kind != 'Service' || self.group != '' || has(self.port)", message="Must have port for Service reference")
class BackendReference(Struct):
    """What requests are passed on to."""

    group: Annotated[Group, Default("")] = ""
    kind: Kind = "Service"
    name: Name
    namespace: Namespace | None = None
    port: Port | None = None


class ParentReference(Struct):
    """What a route attaches to: a Gateway or ListenerSet, all of its listeners or the one that is named."""

    group: Group = GROUP
    kind: Kind = "Gateway"
    namespace: Namespace | None = None
    name: Name
    section_name: SectionName | None = None
    port: Port | None = None


class RouteParentStatus(Struct):
    """What one controller says of a route at one parent."""

    parent_ref: ParentReference
    controller_name: Controller
    conditions: Annotated[Sequence[Condition], ListType("map", keys=("type",)), MinLength(1), MaxLength(8)] = ()


class RouteStatus(Struct):
    """What the controllers of a route's parents say."""

    parents: Annotated[Sequence[RouteParentStatus], ListType("atomic"), MaxLength(32)] = ()


class RouteKind(Struct):
    """A kind of routes."""

    group: Group = GROUP
    kind: Kind


class RouteNamespaces(Struct):
    """Of which namespaces routes may attach."""

    from_: Literal["All", "Selector", "Same"] = field(default="Same", name="from")
    selector: LabelSelector | None = None


class AllowedRoutes(Struct):
    """Which routes may attach to a listener."""

    namespaces: Annotated[RouteNamespaces, Default({"from": "Same"})] = RouteNamespaces()
    kinds: Annotated[Sequence[RouteKind], ListType("atomic"), MaxLength(8)] = ()


class Header(Struct):
    """A header's name and value."""

    name: HeaderName
    value: Annotated[str, MinLength(1), MaxLength(4096)]


class HeaderFilter(Struct):
    """Changes of headers."""

    set: Annotated[Sequence[Header], ListType("map", keys=("name",)), MaxLength(16)] = ()
    add: Annotated[Sequence[Header], ListType("map", keys=("name",)), MaxLength(16)] = ()
    remove: Annotated[Sequence[str], ListType("set"), MaxLength(16)] = ()
