"""The address families of a service: what they are where nobody says so, and what a cluster of one family refuses.

Facts: `pkg/registry/core/service/storage/alloc.go` of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pilothouse.apiserver.ports import Object
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = ["settle_families"]

_SPEC: Final = Path("spec")
_POLICY: Final = _SPEC.child("ipFamilyPolicy")
_SINGLE, _PREFER, _REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
_OTHER: Final = {"IPv4": "IPv6", "IPv6": "IPv4"}


def settle_families(spec: Object, before: Object, family: str) -> ErrorList:
    """Fill `ipFamilies` and `ipFamilyPolicy` of a service in, in place; return what is wrong with them.

    before: the spec of the service that it replaces, empty for a new one. family: the cluster's only one.
    """
    errors = ErrorList()
    if spec.get("type") == "ExternalName" or _prefers_as_before(spec, before):
        return errors
    headless = spec.get("clusterIP") == "None"
    free = headless and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or (_REQUIRE if free else _SINGLE)
    if before:
        _check_release(errors, spec, before)
    _check_policy(errors, spec)
    _infer(errors, spec, family)
    if errors:
        return errors
    if free:
        _complete(spec, family)
        return errors
    if spec["ipFamilyPolicy"] == _REQUIRE:
        errors.invalid(_POLICY, _REQUIRE, "this cluster is not configured for dual-stack services")
    for position, each in enumerate(spec.get("ipFamilies") or ()):
        if each != family:
            errors.invalid(_SPEC.child("ipFamilies").index(position), each, "not configured on this cluster")
    if not errors and not spec.get("ipFamilies"):
        spec["ipFamilies"] = [family]
    return errors


def _prefers_as_before(spec: Object, before: Object) -> bool:
    """Whether a service that would rather have two families stays what it is, whatever the cluster has by now."""
    fields = ("type", "ipFamilyPolicy", "clusterIPs", "ipFamilies")
    return spec.get("ipFamilyPolicy") == _PREFER and all(spec.get(name) == before.get(name) for name in fields)


def _check_release(errors: ErrorList, spec: Object, before: Object) -> None:
    for name, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        now, then = _listed(spec, name), _listed(before, name)
        if spec["ipFamilyPolicy"] == _SINGLE:
            if now == then and len(now) > 1:
                spec[name] = [now[0]]
        elif now and len(now) < len(then):
            errors.invalid(_POLICY, spec["ipFamilyPolicy"], f"must be 'SingleStack' to release the secondary {what}")


def _check_policy(errors: ErrorList, spec: Object) -> None:
    if spec["ipFamilyPolicy"] != _SINGLE:
        return
    for name, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
        if len(_listed(spec, name)) > 1:
            text = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            errors.invalid(_POLICY, _SINGLE, text)


def _infer(errors: ErrorList, spec: Object, family: str) -> None:
    """Add the families of addresses that are given and have none."""
    addresses = _listed(spec, "clusterIPs")
    for position, address in enumerate(addresses):
        if address == "None":
            return
        found = "IPv6" if ":" in address else "IPv4"
        families = _listed(spec, "ipFamilies")
        if position < len(families):
            continue
        if found != family:
            at = _SPEC.child("clusterIPs").index(position)
            errors.invalid(at, [*addresses], f"{found} is not configured on this cluster")
        else:
            spec["ipFamilies"] = [*families, found]


def _complete(spec: Object, family: str) -> None:
    """Give a service whose endpoints somebody else writes both families, unless it wants one."""
    families = _listed(spec, "ipFamilies") or [family]
    if len(families) == 1 and spec["ipFamilyPolicy"] != _SINGLE:
        families = [families[0], _OTHER[families[0]]]
    spec["ipFamilies"] = [*families]


def _listed(spec: Object, name: str) -> Sequence[str]:
    return spec.get(name) or []
