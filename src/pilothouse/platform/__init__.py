"""The composition root: which processes the platform is made of, and who watches over them."""

from __future__ import annotations

import os
from typing import Final

from .supervisor import Part, Supervisor, become_supervisor

__all__ = ["CONTROL", "GATEWAY_OBJECTS", "NODE", "PARTS", "Part", "Supervisor", "become_supervisor"]

CONTROL: Final = ("controllers", "scheduler", "load-balancers", "dns", "gateway")
"""What runs beside the API server in one process, as far as it concerns the whole cluster; of the gateway, who looks
whether it is wanted."""
NODE: Final = ("services", "network-policies", "dns")
"""What a node has beside its pods, in the process of its agent."""
PARTS: Final = (
    *("controllers", "scheduler", "load-balancers", "gateway"),
    *("agent", "services", "network-policies", "dns"),
)
"""What can be left out of `pilothouse up`."""
GATEWAY_OBJECTS: Final = os.path.join(os.path.dirname(__file__), "gateway.jsonl")
"""What makes gateways known to a cluster, for the API server; written by scripts/generate-gateway-objects."""
