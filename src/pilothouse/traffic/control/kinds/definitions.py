"""The CustomResourceDefinitions of all kinds: Gateway API's, marked with its version, and our own."""

from __future__ import annotations

import copy
from typing import Any, Final

from pilothouse.kinds.structs import Resource
from pilothouse.operator.crds import definition

from .common import GROUP
from .gateways import Gateway, GatewayClass, ListenerSet, ReferenceGrant
from .policies import BackendTLSPolicy, RegionWeights, TrafficPolicy
from .routes import GRPCRoute, HTTPRoute, TCPRoute, TLSRoute

__all__ = ["BUNDLE_VERSION", "KINDS", "definitions"]

BUNDLE_VERSION: Final = "v1.6.3"
"""The version of Gateway API that the definitions say the same as."""

KINDS: Final[tuple[type[Resource], ...]] = (
    GatewayClass,
    Gateway,
    ListenerSet,
    HTTPRoute,
    GRPCRoute,
    TLSRoute,
    TCPRoute,
    ReferenceGrant,
    BackendTLSPolicy,
    RegionWeights,
    TrafficPolicy,
)
_OLDER: Final[dict[str, tuple[str, ...]]] = {
    "GatewayClass": ("v1beta1",),
    "Gateway": ("v1beta1",),
    "HTTPRoute": ("v1beta1",),
    "ReferenceGrant": ("v1beta1",),
    "TLSRoute": ("v1alpha3", "v1alpha2"),
    "TCPRoute": ("v1alpha2",),
    "BackendTLSPolicy": ("v1alpha3",),
}
_MARKS: Final = {
    "gateway.networking.k8s.io/bundle-version": BUNDLE_VERSION,
    "gateway.networking.k8s.io/channel": "standard",
    "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/4530",
}


def definitions() -> list[dict[str, Any]]:
    """Return the definition of each kind, as JSON has it; older versions say what the newest does."""
    return [_definition(kind) for kind in KINDS]


def _definition(kind: type[Resource]) -> dict[str, Any]:
    made = definition(kind)
    versions = made["spec"]["versions"]
    for name in _OLDER.get(kind.gvk[2], ()):
        older = copy.deepcopy(versions[0])
        versions.append({**older, "name": name, "storage": False})
    if kind.group == GROUP:
        made["metadata"]["annotations"] = dict(_MARKS)
    if kind is BackendTLSPolicy:
        made["metadata"]["labels"] = {"gateway.networking.k8s.io/policy": "Direct"}
    return made
