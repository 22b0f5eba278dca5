"""The kinds that a gateway is told things by, as typed structs; their definitions are made from these."""

from __future__ import annotations

from .common import GROUP
from .definitions import BUNDLE_VERSION, KINDS, definitions
from .gateways import Gateway, GatewayClass, ListenerSet, ReferenceGrant
from .policies import OWN_GROUP, BackendTLSPolicy, RegionWeights, TrafficPolicy
from .routes import GRPCRoute, HTTPRoute, TCPRoute, TLSRoute

__all__ = [
    "BUNDLE_VERSION",
    "GROUP",
    "KINDS",
    "OWN_GROUP",
    "BackendTLSPolicy",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "HTTPRoute",
    "ListenerSet",
    "ReferenceGrant",
    "RegionWeights",
    "TCPRoute",
    "TLSRoute",
    "TrafficPolicy",
    "definitions",
]
