"""Which pods the services of a rollout select, and when that may change."""

from __future__ import annotations

from pilothouse.kinds.structs import ReplicaSet, Service

from .actions import SelectService
from .names import MANAGED_BY
from .situation import Situation, available, hash_label, selected, size
from .weights import is_drained_back

__all__ = ["canary_selections", "selects"]


def canary_selections(sit: Situation, *, is_drained: bool) -> list[SelectService]:
    """Return the services of a canary that are to select other pods now.

    is_drained: whether no traffic is left for the canary service. A service is turned to pods that are there; the first
    time, when it may still select everything, all of them have to be.
    """
    stable_name, canary_name = sit.services
    found = [_select(sit, stable_name, sit.stable, check=True)]
    if sit.is_aborted:
        if not sit.is_routed:
            found.append(_select(sit, canary_name, sit.stable, check=True))
        elif is_drained:
            found.append(_select(sit, canary_name, sit.stable, check=False))
    elif not is_drained_back(sit) and not (sit.is_promoted and sit.canary is not None and sit.canary.ping_pong):
        found.append(_select(sit, canary_name, sit.new, check=True))
    return [each for each in found if each is not None]


def selects(sit: Situation, name: str, wanted: str, planned: list[SelectService]) -> bool:
    """Whether a service selects a hash, or will when what is planned is done."""
    last = next((each.hash for each in reversed(planned) if each.name == name), sit.selected(name))
    return last == wanted


def _select(sit: Situation, name: str, found: ReplicaSet | None, *, check: bool) -> SelectService | None:
    service = sit.view.services.get(name) if name else None
    if service is None or found is None:
        return None
    wanted, present = hash_label(found), selected(service)
    if wanted == present or (check and sit.replicas and not _may_select(service, found)):
        return None
    return SelectService(name, wanted, present)


def _may_select(service: Service, found: ReplicaSet) -> bool:
    if MANAGED_BY in service.metadata.annotations:
        return available(found) > 0
    return 0 < size(found) <= available(found)
