"""The composition root: which processes the platform is made of, and who watches over them."""

from __future__ import annotations

from typing import Final

from .supervisor import Part, Supervisor, become_supervisor

__all__ = ["CONTROL", "NODE", "PARTS", "Part", "Supervisor", "become_supervisor"]

CONTROL: Final = ("controllers", "scheduler", "load-balancers", "dns")
"""What runs beside the API server in one process, as far as it concerns the whole cluster."""
NODE: Final = ("services", "network-policies", "dns")
"""What a node has beside its pods, in the process of its agent."""
PARTS: Final = ("controllers", "scheduler", "load-balancers", "agent", "services", "network-policies", "dns")
"""What can be left out of `pilothouse up`."""
