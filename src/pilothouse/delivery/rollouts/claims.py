"""What a rollout writes into objects that others have made: the selectors of services, and parts of routes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.structs import StructError, from_dict

from .names import HASH
from .routes import RouteWants
from .routing import ROUTE_KINDS, managed_names, regions_name, route_keys
from .validation import service_names
from .weights import Split

__all__ = ["HASH", "ROUTE_GROUP", "ROUTE_KINDS", "Claim", "ClaimKey", "claims_of"]

ROUTE_GROUP: Final = "gateway.networking.k8s.io"
_STATUS: Final = ("phase", "currentPodHash", "stableRS", "observedGeneration", "canary")
_ON_ITS_WAY: Final = frozenset({"Progressing", "Paused"})

ClaimKey = tuple[str, str, str]
"""Kind, namespace and name of a service or a route."""


class Claim(NamedTuple):
    """What one rollout writes into one object.

    busy: whether an update is on its way. services: those whose weights it sets in a route, stable and canary; none for
    a claim on a service itself, of which it has the selector's hash. managed: names of rules that its steps make.
    regions: the name of its RegionWeights object. additional: services of experiments that have a share.
    """

    rollout: str
    busy: bool
    services: tuple[str, ...] = ()
    managed: tuple[str, ...] = ()
    regions: str = ""
    additional: tuple[str, ...] = ()

    @property
    def wants(self) -> RouteWants:
        """What tells which rules and filters of a route are meant."""
        stable, canary = self.services
        return RouteWants(stable, canary, Split(), self.managed, self.regions)


def claims_of(obj: Mapping[str, Any]) -> dict[ClaimKey, Claim]:
    """Return what a rollout, as JSON has it, writes into which objects; nothing for one that cannot be read."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    named = {name: metadata[name] for name in ("name", "namespace", "generation") if name in metadata}
    tree = {
        "metadata": named,
        "spec": {"strategy": spec.get("strategy") or {}},
        "status": {name: status[name] for name in _STATUS if name in status},
    }
    try:
        rollout = from_dict(tree, Rollout)
    except StructError:
        return {}
    return _claims(rollout)


def _claims(rollout: Rollout) -> dict[ClaimKey, Claim]:
    name, namespace, busy = rollout.metadata.name, rollout.metadata.namespace, _is_busy(rollout)
    services = [*dict.fromkeys(service_names(rollout))]
    found: dict[ClaimKey, Claim] = {("Service", namespace, each): Claim(name, busy) for each in services}
    if len(services) != 2:
        return found
    weights = rollout.status.canary.weights
    claim = Claim(
        name,
        busy,
        services=(services[0], services[1]),
        managed=tuple(managed_names(rollout)),
        regions=regions_name(rollout),
        additional=tuple(each.service_name or "" for each in (weights.additional if weights is not None else ())),
    )
    return found | dict.fromkeys(map(tuple[str, str, str], route_keys(rollout)), claim)


def _is_busy(rollout: Rollout) -> bool:
    """Whether an update is on its way, paused or taken back, or may be, as the status is not of this template yet."""
    status = rollout.status
    seen = status.observed_generation == str(rollout.metadata.generation or 0)
    at_rest = bool(status.stable_rs) and status.stable_rs == status.current_pod_hash
    return not (seen and at_rest) or status.phase in _ON_ITS_WAY
