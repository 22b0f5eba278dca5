"""Routes of a strategy that splits traffic by them no more: they lead to the stable service alone again. Pure.

Nothing names these routes any more, so they are found by the two services between which they split, as the status has
them until all is done.
"""

from __future__ import annotations

from pilothouse.delivery.resources.rollouts import Rollout

from .actions import Action, WriteRegions, WriteRoute
from .routes import RouteWants, rewritten, splits
from .routing import managed_names, regions_name
from .situation import Situation
from .weights import Split

__all__ = ["former_services", "former_writes"]


def former_services(rollout: Rollout) -> tuple[str, str] | None:
    """Return the stable and the canary service between which routes were split, None where they still are, or never."""
    canary, weights = rollout.spec.strategy.canary, rollout.status.canary.weights
    is_routed = rollout.spec.strategy.blue_green is None and canary is not None and canary.traffic_routing is not None
    if is_routed or weights is None:
        return None
    stable, canary_name = weights.stable.service_name, weights.canary.service_name
    return (stable, canary_name) if stable and canary_name else None


def former_writes(sit: Situation) -> list[Action]:
    """Return the writes by which nothing of the former split is left.

    Each route is written, also one that seems to be right: where what is known of it is old, that fails, and the status
    remembers the split until it is known.
    """
    rollout = sit.view.rollout
    services, weights = former_services(rollout), rollout.status.canary.weights
    if services is None or weights is None:
        return []
    additional = frozenset(one.service_name for one in weights.additional if one.service_name)
    regions = regions_name(rollout)
    wants = RouteWants(*services, Split(sit.max_weight), managed_names(rollout), regions, additional)
    made: list[Action] = [
        WriteRoute(key, rewritten(route, wants)) for key, route in sit.view.routes.items() if splits(route, services)
    ]
    if sit.view.regions is not None:
        made.append(WriteRegions(sit.namespace, regions))
    return made
