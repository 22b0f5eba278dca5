"""The composition root: which processes the platform is made of, and who watches over them."""

from __future__ import annotations

import os
from typing import Final

from .supervisor import Part, Supervisor, become_supervisor

__all__ = ["CONTROL", "DELIVERY_OBJECTS", "GATEWAY_OBJECTS", "NODE", "PARTS", "Part", "Supervisor", "become_supervisor"]

CONTROL: Final = ("controllers", "scheduler", "load-balancers", "dns", "gateway", "delivery")
"""What runs beside the API server in one process, as far as it concerns the whole cluster; of gateway
and delivery, who looks whether they are wanted."""
NODE: Final = ("services", "network-policies", "dns")
"""What a node has beside its pods, in the process of its agent."""
PARTS: Final = (
    *("controllers", "scheduler", "load-balancers", "gateway", "delivery"),
    *("agent", "services", "network-policies", "dns"),
)
"""What can be left out of `pilothouse up`."""
GATEWAY_OBJECTS: Final = os.path.join(os.path.dirname(__file__), "gateway.jsonl")
"""What makes gateways known to a cluster, for the API server; written by scripts/generate-bundled-objects."""
DELIVERY_OBJECTS: Final = os.path.join(os.path.dirname(__file__), "delivery.jsonl")
"""The kinds of delivery, written likewise."""
