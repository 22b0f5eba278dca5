"""The controller that keeps classes of volume attributes while claims or volumes have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pilothouse.client import ignore_not_found
from pilothouse.kinds.structs import PersistentVolume, PersistentVolumeClaim, VolumeAttributesClass, replace
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate

__all__ = ["AttributesProtector", "add_attributes_protection"]

_FINALIZER: Final = "kubernetes.io/vac-protection"


class AttributesProtector(Reconciler[VolumeAttributesClass]):
    """Adds the finalizer, and takes it from a class that goes and that nothing has any more."""

    def __init__(self, manager: Manager) -> None:
        self._claims = manager.informer(PersistentVolumeClaim)
        self._volumes = manager.informer(PersistentVolume)

    async def reconcile(self, obj: VolumeAttributesClass, context: Context) -> Result | None:
        """Protect a class, or let it go."""
        finalizers = obj.metadata.finalizers
        if obj.metadata.deletion_timestamp is None:
            if _FINALIZER not in finalizers:
                await self._write(obj, [*finalizers, _FINALIZER], context)
        elif _FINALIZER in finalizers and not self._is_used(obj.metadata.name):
            await self._write(obj, [each for each in finalizers if each != _FINALIZER], context)
        return None

    @staticmethod
    async def _write(obj: VolumeAttributesClass, finalizers: list[str], context: Context) -> None:
        await ignore_not_found(context.update(replace(obj, metadata__finalizers=finalizers)))

    def _is_used(self, name: str) -> bool:
        claims, volumes = self._claims.lister().list(), self._volumes.lister().list()
        return any(name in _of_claim(each) for each in claims) or any(name in _of_volume(each) for each in volumes)


def _of_claim(claim: PersistentVolumeClaim) -> set[str]:
    names = {claim.spec.volume_attributes_class_name, claim.status.current_volume_attributes_class_name}
    if claim.status.modify_volume_status is not None:
        names.add(claim.status.modify_volume_status.target_volume_attributes_class_name)
    return {name for name in names if name}


def _of_volume(volume: PersistentVolume) -> set[str]:
    return {volume.spec.volume_attributes_class_name} if volume.spec.volume_attributes_class_name else set()


class _Had(Predicate[Any]):
    """Claims and volumes that have a class no more: gone, or of another one."""

    def create(self, obj: Any) -> bool:
        return False


def _requests(names: set[str]) -> Iterable[Request]:
    return [Request("", name) for name in sorted(names)]


def add_attributes_protection(manager: Manager) -> None:
    """Add the controller that keeps classes of volume attributes."""
    reconciler = AttributesProtector(manager)
    building = controller(manager, "volumeattributesclass-protection-controller").for_(VolumeAttributesClass)
    building = building.watches(PersistentVolumeClaim, lambda claim: _requests(_of_claim(claim)), _Had())
    building.watches(PersistentVolume, lambda volume: _requests(_of_volume(volume)), _Had()).build(reconciler)
