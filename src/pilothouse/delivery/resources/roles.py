"""What the roles `view`, `edit` and `admin` of a namespace say about delivery's kinds, which they gather by labels."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["roles"]

_LOOK: Final = ["get", "list", "watch"]
_CHANGE: Final = ["create", "delete", "deletecollection", "patch", "update"]
_AGGREGATE: Final = "rbac.authorization.k8s.io/aggregate-to-"
_ROLLOUTS: Final = ["rollouts", "rollouts/scale", "rollouts/status", "experiments", "analysistemplates", "analysisruns"]


def roles() -> list[dict[str, Any]]:
    """Return ClusterRoles: who may view a namespace sees delivery's kinds in it, who may edit it steers rollouts.

    Applications are only looked at: who changes one has things made with the controller's rights wherever its project
    allows, which is more than a role of one namespace may give.
    """
    looked_at = [*_ROLLOUTS, "applications", "appprojects", "applicationsets"]
    view = [
        {"apiGroups": ["argoproj.io"], "resources": looked_at, "verbs": _LOOK},
        {"apiGroups": ["pilothouse.dev"], "resources": ["servicelevels", "incidents"], "verbs": _LOOK},
    ]
    edit = [
        {"apiGroups": ["argoproj.io"], "resources": _ROLLOUTS, "verbs": _CHANGE},
        {"apiGroups": ["pilothouse.dev"], "resources": ["servicelevels"], "verbs": _CHANGE},
    ]
    return [_role("view", ("view", "edit", "admin"), view), _role("edit", ("edit", "admin"), edit)]


def _role(name: str, gathered_by: tuple[str, ...], rules: list[dict[str, Any]]) -> dict[str, Any]:
    labels = {f"{_AGGREGATE}{each}": "true" for each in gathered_by}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": f"pilothouse-delivery-{name}", "labels": labels},
        "rules": rules,
    }
