"""Steps for storage and traffic: default classes, finalizers against removal in use, growth of claims, external IPs."""

from __future__ import annotations

from typing import Final

from pilothouse.apiserver.admission.plugin import Plugin, annotations_of, forbid, requested
from pilothouse.apiserver.admission.podresources import read
from pilothouse.apiserver.ports import AdmissionRequest, Object, View
from pilothouse.kinds.quantity import Quantity

__all__ = [
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DenyServiceExternalIPs",
    "PersistentVolumeClaimResize",
    "StorageObjectInUseProtection",
    "claim_class",
]

_BETA_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_CLAIMS: Final = frozenset({("", "persistentvolumeclaims")})
_STORAGE_DEFAULT: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_INGRESS_DEFAULT: Final = ("ingressclass.kubernetes.io/is-default-class",)


def claim_class(claim: Object) -> str:
    """Return the storage class that a claim names, in the annotation or the field; empty for none."""
    told = annotations_of(claim).get(_BETA_CLASS)
    return str(told if told is not None else (claim.get("spec") or {}).get("storageClassName") or "")


def _default(view: View, resource: str, marks: tuple[str, ...]) -> str | None:
    """Return the name of the default class: of several the newest, of equally old ones the first by name."""
    found = [one for one in view.list(resource) if any(annotations_of(one).get(mark) == "true" for mark in marks)]
    if not found:
        return None
    found.sort(key=lambda one: str(one["metadata"]["name"]))
    newest = max(str(one["metadata"].get("creationTimestamp") or "") for one in found)
    return next(
        str(one["metadata"]["name"]) for one in found if str(one["metadata"].get("creationTimestamp") or "") == newest
    )


class DefaultStorageClass(Plugin):
    """Gives claims that name no storage class the default one."""

    OPERATIONS = frozenset({"CREATE"})
    RESOURCES = _CLAIMS
    name = "DefaultStorageClass"

    def __init__(self, view: View) -> None:
        self._view = view

    def mutate(self, request: AdmissionRequest) -> None:
        """Name the default class, if there is one."""
        claim = requested(request)
        spec = claim.setdefault("spec", {})
        if spec.get("storageClassName") is not None or _BETA_CLASS in annotations_of(claim):
            return
        name = _default(self._view, "storageclasses.storage.k8s.io", _STORAGE_DEFAULT)
        if name is not None:
            spec["storageClassName"] = name


class DefaultIngressClass(Plugin):
    """Gives ingresses that name no class the default one."""

    OPERATIONS = frozenset({"CREATE"})
    RESOURCES = frozenset({("networking.k8s.io", "ingresses")})
    name = "DefaultIngressClass"

    def __init__(self, view: View) -> None:
        self._view = view

    def mutate(self, request: AdmissionRequest) -> None:
        """Name the default class, if there is one."""
        ingress = requested(request)
        spec = ingress.setdefault("spec", {})
        if spec.get("ingressClassName") is not None or "kubernetes.io/ingress.class" in annotations_of(ingress):
            return
        name = _default(self._view, "ingressclasses.networking.k8s.io", _INGRESS_DEFAULT)
        if name is not None:
            spec["ingressClassName"] = name


class DenyServiceExternalIPs(Plugin):
    """Refuses services with further external addresses, which could take traffic from others. Off by default."""

    OPERATIONS = frozenset({"CREATE", "UPDATE"})
    RESOURCES = frozenset({("", "services")})
    name = "DenyServiceExternalIPs"

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for addresses that were not there before."""
        old, new = ((one or {}).get("spec") or {} for one in (request.old, request.object))
        if set(new.get("externalIPs") or ()).difference(old.get("externalIPs") or ()):
            raise forbid(request, "Use of external IPs is denied by admission control.")


class StorageObjectInUseProtection(Plugin):
    """Gives volumes and claims the finalizer that keeps them while they are used."""

    FINALIZERS = {  # noqa: RUF012 - a constant
        ("", "persistentvolumeclaims"): "kubernetes.io/pvc-protection",
        ("", "persistentvolumes"): "kubernetes.io/pv-protection",
        ("storage.k8s.io", "volumeattributesclasses"): "kubernetes.io/vac-protection",
    }
    OPERATIONS = frozenset({"CREATE"})
    RESOURCES = frozenset(FINALIZERS)
    name = "StorageObjectInUseProtection"

    def mutate(self, request: AdmissionRequest) -> None:
        """Add the finalizer."""
        finalizer = self.FINALIZERS[request.resource[0], request.resource[2]]
        metadata = requested(request).setdefault("metadata", {})
        present = metadata.get("finalizers") or []
        if finalizer not in present:
            metadata["finalizers"] = [*present, finalizer]


class PersistentVolumeClaimResize(Plugin):
    """Refuses to grow claims whose storage class does not allow it."""

    OPERATIONS = frozenset({"UPDATE"})
    RESOURCES = _CLAIMS
    name = "PersistentVolumeClaimResize"

    def __init__(self, view: View) -> None:
        self._view = view

    def validate(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for a claim that cannot grow."""
        claim, old = requested(request), request.old
        if old is None or _size(claim) <= _size(old):
            return
        if (old.get("status") or {}).get("phase") != "Bound":
            raise forbid(request, "Only bound persistent volume claims can be expanded")
        if not self._allowed(claim, old):
            raise forbid(
                request,
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize",
            )

    def _allowed(self, claim: Object, old: Object) -> bool:
        name = claim_class(claim)
        if not name or name != claim_class(old):
            return False
        found = self._view.get("storageclasses.storage.k8s.io", "", name)
        return found is not None and bool(found.get("allowVolumeExpansion"))


def _size(claim: Object) -> Quantity:
    """Return the storage that a claim asks for."""
    requests = ((claim.get("spec") or {}).get("resources") or {}).get("requests") or {}
    return read(requests.get("storage", "0"))
