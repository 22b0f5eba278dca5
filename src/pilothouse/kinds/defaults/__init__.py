"""Defaults: what the API server fills into an object of a built-in kind, as kube-apiserver 1.36 does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pilothouse.kinds.defaults import apps, batch, core, networking, other

__all__ = ["default", "has_defaults"]

_Defaulter = Callable[[dict[str, Any]], None]

_GROUPS: dict[tuple[str, str], Mapping[str, _Defaulter]] = {
    ("", "v1"): core.DEFAULTERS,
    ("admissionregistration.k8s.io", "v1"): other.ADMISSION,
    ("apiextensions.k8s.io", "v1"): other.EXTENSIONS,
    ("apiregistration.k8s.io", "v1"): other.REGISTRATION,
    ("apps", "v1"): apps.DEFAULTERS,
    ("authentication.k8s.io", "v1"): other.AUTHENTICATION,
    ("autoscaling", "v1"): batch.AUTOSCALING_V1,
    ("autoscaling", "v2"): batch.AUTOSCALING_V2,
    ("batch", "v1"): batch.DEFAULTERS,
    ("coordination.k8s.io", "v1"): other.COORDINATION,
    ("discovery.k8s.io", "v1"): networking.DISCOVERY,
    ("flowcontrol.apiserver.k8s.io", "v1"): other.FLOW_CONTROL,
    ("networking.k8s.io", "v1"): networking.DEFAULTERS,
    ("policy", "v1"): other.POLICY,
    ("rbac.authorization.k8s.io", "v1"): other.RBAC,
    ("resource.k8s.io", "v1"): other.RESOURCE,
    ("scheduling.k8s.io", "v1"): other.SCHEDULING,
    ("storage.k8s.io", "v1"): other.STORAGE,
}
_DEFAULTERS = {(*group, kind): run for group, kinds in _GROUPS.items() for kind, run in kinds.items()}


def has_defaults(group: str, version: str, kind: str) -> bool:
    """Whether a kind has defaults."""
    return (group, version, kind) in _DEFAULTERS


def default(obj: dict[str, Any], group: str, version: str, kind: str) -> dict[str, Any]:
    """Fill in the defaults of a built-in kind, in place, and return the same object.

    The object must have the shape of its kind (decoding checks that). Kinds without defaults and unknown kinds
    are left as they are. Also filled in are the empty objects that an answer of kube-apiserver always carries
    (`resources: {}` of a container). Not done here: what needs allocation (addresses, node ports, IP families),
    what admission adds, and what a write strategy decides (status, generation, deprecated fields).
    Facts: `pkg/apis/*/v1/defaults.go` of Kubernetes 1.36.
    """
    run = _DEFAULTERS.get((group, version, kind))
    if run is not None:
        run(obj)
    return obj
