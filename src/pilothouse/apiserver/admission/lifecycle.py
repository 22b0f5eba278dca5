"""NamespaceLifecycle: nothing is made where there is no namespace, or in one that is going."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pilothouse.apiserver.admission.plugin import Plugin, forbid
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Operation, View
from pilothouse.kinds import status

__all__ = ["IMMORTAL", "NamespaceLifecycle"]

IMMORTAL: Final = frozenset({"default", "kube-system", "kube-public"})
"""Namespaces that nobody may delete."""

_ACCESS_REVIEW: Final = ("authorization.k8s.io", "localsubjectaccessreviews")
"""To say of it that the namespace is missing would tell strangers which namespaces there are."""


class NamespaceLifecycle(Plugin):
    """Refuses what is to be made in a namespace that is missing or terminating, and the deletion of system ones."""

    name = "NamespaceLifecycle"

    def __init__(self, view: View, immortal: Iterable[str] = IMMORTAL) -> None:
        self._view = view
        self._immortal = frozenset(immortal)

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Creations everywhere, CONNECT in namespaces, and the deletion of namespaces."""
        group, _, plural = resource
        if operation == "DELETE":
            return (group, plural) == ("", "namespaces")
        return operation in {"CREATE", "CONNECT"} and (group, plural) != _ACCESS_REVIEW

    def mutate(self, request: AdmissionRequest) -> None:
        """Raise NotFound for a missing namespace, Forbidden for one that is terminating or may not be deleted."""
        if request.operation == "DELETE":
            if request.name in self._immortal:
                raise status.forbidden("", "namespaces", request.name, "this namespace may not be deleted")
            return
        namespace = request.namespace
        if not namespace or (request.kind[0], request.kind[2]) == ("", "Namespace"):
            return
        found = self._view.get("namespaces", "", namespace)
        if found is None:
            raise status.not_found("", "namespaces", namespace)
        if request.operation == "CREATE" and (found.get("status") or {}).get("phase") == "Terminating":
            raise _terminating(request)


def _terminating(request: AdmissionRequest) -> status.Forbidden:
    namespace = request.namespace
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    plain = forbid(request, why)
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    details = plain.details or status.Details()
    return status.Forbidden(
        plain.message, status.Details(details.name, details.group, details.kind, details.uid, [cause])
    )
