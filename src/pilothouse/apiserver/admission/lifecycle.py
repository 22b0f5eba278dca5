"""NamespaceLifecycle: nothing is made where there is no namespace, or in one that is going."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from pilothouse.apiserver.admission.plugin import Plugin, forbid, with_cause
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Object, Operation, View
from pilothouse.kinds import status

__all__ = ["IMMORTAL", "Lookup", "NamespaceLifecycle"]

Lookup: TypeAlias = Callable[[str], Awaitable[Object | None]]
"""Reads a namespace from the store, past all caches; None where there is none."""

IMMORTAL: Final = frozenset({"default", "kube-system", "kube-public"})
"""Namespaces that nobody may delete."""

_ACCESS_REVIEW: Final = ("authorization.k8s.io", "localsubjectaccessreviews")
"""To say of it that the namespace is missing would tell strangers which namespaces there are."""


class NamespaceLifecycle(Plugin):
    """Refuses what is to be made in a namespace that is missing or terminating, and the deletion of system ones.

    lookup: asks the store for a namespace that the view does not have, where other servers write to the same store.
    """

    name = "NamespaceLifecycle"

    def __init__(self, view: View, immortal: Iterable[str] = IMMORTAL, lookup: Lookup | None = None) -> None:
        self._view = view
        self._immortal = frozenset(immortal)
        self._lookup = lookup

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Creations everywhere, CONNECT in namespaces, and the deletion of namespaces."""
        group, _, plural = resource
        if operation == "DELETE":
            return (group, plural) == ("", "namespaces")
        return operation in {"CREATE", "CONNECT"} and (group, plural) != _ACCESS_REVIEW

    def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Raise NotFound for a missing namespace, Forbidden for one that is terminating or may not be deleted."""
        if request.operation == "DELETE":
            if request.name in self._immortal:
                raise status.forbidden("", "namespaces", request.name, "this namespace may not be deleted")
            return None
        namespace = request.namespace
        if not namespace or (request.kind[0], request.kind[2]) == ("", "Namespace"):
            return None
        found = self._view.get("namespaces", "", namespace)
        if found is None and self._lookup is not None:
            return self._look_again(request, self._lookup)
        _check(request, found)
        return None

    @staticmethod
    async def _look_again(request: AdmissionRequest, lookup: Lookup) -> None:
        _check(request, await lookup(request.namespace))


def _check(request: AdmissionRequest, namespace: Object | None) -> None:
    if namespace is None:
        raise status.not_found("", "namespaces", request.namespace)
    if request.operation == "CREATE" and (namespace.get("status") or {}).get("phase") == "Terminating":
        raise _terminating(request)


def _terminating(request: AdmissionRequest) -> status.Forbidden:
    namespace = request.namespace
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    return with_cause(forbid(request, why), cause)
