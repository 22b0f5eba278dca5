"""OwnerReferencesPermissionEnforcement: an owner may be set only by who may delete. Off by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from pilothouse.apiserver.admission.plugin import Plugin, forbid
from pilothouse.apiserver.ports import AdmissionRequest, Attributes, Authorizer, Decision, Gvr, Object, Operation

__all__ = ["OwnerReferencesPermissionEnforcement"]

Resources: TypeAlias = Callable[[str, str], tuple[str, bool] | None]
"""Gives the plural of a kind and whether it is namespaced: `resources("apps/v1", "Deployment")`; None if unknown."""

_CANNOT: Final = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion"


class OwnerReferencesPermissionEnforcement(Plugin):
    """Refuses changed owners by who may not delete the object, and blocking owners by who may not finalize them."""

    name = "OwnerReferencesPermissionEnforcement"

    def __init__(self, authorizer: Authorizer, resources: Resources) -> None:
        self._authorizer = authorizer
        self._resources = resources

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """All creations and updates but those of a pod's status."""
        return operation in {"CREATE", "UPDATE"} and (resource[2], subresource) != ("pods", "status")

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden."""
        old, new = _owners(request.old), _owners(request.object)
        if old == new:
            return
        group, version, plural = request.resource
        delete = Attributes(
            request.user, "delete", True, group, version, plural, request.subresource, request.namespace, request.name
        )
        decision = self._authorizer.authorize(delete)
        if not decision.allowed:
            raise forbid(request, f"cannot set an ownerRef on a resource you can't delete: {_why(decision)}")
        before = {one.get("uid"): bool(one.get("blockOwnerDeletion")) for one in old}
        for owner in new:
            if owner.get("blockOwnerDeletion") and not before.get(owner.get("uid")):
                self._check_blocking(request, owner)

    def _check_blocking(self, request: AdmissionRequest, owner: Object) -> None:
        version, kind = str(owner.get("apiVersion", "")), str(owner.get("kind", ""))
        found = self._resources(version, kind)
        if found is None:
            raise forbid(request, f"{_CANNOT} {version} Kind {kind}")
        plural, namespaced = found
        group, _, number = version.rpartition("/")
        namespace = request.namespace if namespaced else ""
        update = Attributes(
            request.user, "update", True, group, number, plural, "finalizers", namespace, str(owner.get("name", ""))
        )
        decision = self._authorizer.authorize(update)
        if not decision.allowed:
            raise forbid(
                request,
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers "
                f"on: {_why(decision)}",
            )


def _why(decision: Decision) -> str:
    return f"{decision.reason}, {decision.error or '<nil>'}"


def _owners(item: Object | None) -> list[Object]:
    return ((item or {}).get("metadata") or {}).get("ownerReferences") or []
