"""What the status of our own policies says: whether what they are about is there, and can have what they give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pilothouse.kinds.structs import Resource, Service

from .conditions import CONTROLLER, Conditions, StatusOf
from .kinds import Gateway, GRPCRoute, HTTPRoute, TrafficPolicy
from .kinds.common import GROUP
from .kinds.policies import TargetRef
from .snapshot import Snapshot, key_of

__all__ = ["policy_statuses"]

_ROUTE: Final = ("rate_limit", "stickiness")
_SERVICE: Final = ("health_check", "outlier_ejection", "circuit_breaker", "slow_start")
_GATEWAY: Final = ("regions", "limits", "trusted_proxies", "proxy_protocol")
_ABOUT: Final[Mapping[tuple[str, str], tuple[type[Resource], tuple[str, ...]]]] = {
    (GROUP, "HTTPRoute"): (HTTPRoute, _ROUTE),
    (GROUP, "GRPCRoute"): (GRPCRoute, _ROUTE),
    (GROUP, "Gateway"): (Gateway, _GATEWAY),
    ("", "Service"): (Service, _SERVICE),
}


def policy_statuses(snapshot: Snapshot) -> list[StatusOf]:
    """Return what the status of each of our policies should say, one entry a target."""
    return [_status(snapshot, policy) for policy in snapshot.all(TrafficPolicy)]


def _status(snapshot: Snapshot, policy: TrafficPolicy) -> StatusOf:
    entries: list[Mapping[str, Any]] = []
    for target in policy.spec.target_refs:
        said = Conditions(policy.metadata.generation)
        _judge(snapshot, policy, target, said)
        said.default("Accepted", True, "Accepted")
        ref = {
            "group": target.group,
            "kind": target.kind,
            "name": target.name,
            "namespace": policy.metadata.namespace,
            **({"sectionName": target.section_name} if target.section_name else {}),
        }
        entries.append({"ancestorRef": ref, "controllerName": CONTROLLER, "conditions": said.listed()})
    return StatusOf(TrafficPolicy, *key_of(policy), shared=("ancestors", entries))


def _judge(snapshot: Snapshot, policy: TrafficPolicy, target: TargetRef, said: Conditions) -> None:
    known = _ABOUT.get((target.group, target.kind))
    if known is None:
        message = (
            f"policies for {target.group or 'core'}/{target.kind} are not supported; use Gateway, HTTPRoute, Service"
        )
        said.fail("Accepted", "Invalid", message)
        return
    kind, able = known
    if snapshot.get(kind, (policy.metadata.namespace, target.name)) is None:
        message = f"{target.kind} '{policy.metadata.namespace}/{target.name}' is not there"
        said.fail("Accepted", "TargetNotFound", message)
        return
    given = [name for name in (*_ROUTE, *_SERVICE, *_GATEWAY) if getattr(policy.spec, name)]
    odd = [name for name in given if name not in able]
    if odd and not any(name in able for name in given):
        said.fail(
            "Accepted", "Invalid", f"a {target.kind} can have none of {', '.join(odd)}; it can have {', '.join(able)}"
        )
