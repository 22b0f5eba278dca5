"""The controller of ephemeral volumes: a claim for each volume that a pod brings a template of, gone with the pod."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import PersistentVolumeClaim, Pod, from_dict, to_dict
from pilothouse.kinds.structs.core_volumes import PersistentVolumeClaimTemplate, Volume
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.owners import controller_of, owner_reference
from pilothouse.operator.predicates import Predicate

__all__ = ["EphemeralVolumeReconciler", "add_ephemeral_volumes", "claim_for"]

_COMPONENT: Final = "ephemeral_volume"


class _NotOursError(Exception):
    """A claim has the name, but is not the pod's."""


def claim_for(pod: Pod, volume: Volume) -> PersistentVolumeClaim:
    """Return the claim for a pod's volume that has a template, owned by the pod."""
    template = volume.ephemeral.volume_claim_template or PersistentVolumeClaimTemplate()
    body = {
        "metadata": {
            "name": _name(pod, volume),
            "namespace": pod.metadata.namespace,
            "labels": dict(template.metadata.labels),
            "annotations": dict(template.metadata.annotations),
            "ownerReferences": [to_dict(owner_reference(pod))],
        },
        "spec": to_dict(template.spec),
    }
    return from_dict(body, PersistentVolumeClaim)


class EphemeralVolumeReconciler(Reconciler[Pod]):
    """Makes the claims of pods."""

    def __init__(self, manager: Manager) -> None:
        self._events = manager.recorder(_COMPONENT)

    async def reconcile(self, obj: Pod, context: Context) -> Result | None:
        """Make the claims that are not there yet; what cannot be made is told of and tried again."""
        if obj.metadata.deletion_timestamp is not None:
            return None
        for volume in _templated(obj):
            try:
                await self._make(obj, volume, context)
            except (ApiStatus, _NotOursError) as error:
                why = f"create PVC {_name(obj, volume)}: {error.message}" if isinstance(error, ApiStatus) else error
                self._events.warning(obj, "FailedBinding", f"ephemeral volume {volume.name}: {why}")
                raise
        return None

    async def _make(self, obj: Pod, volume: Volume, context: Context) -> None:
        wanted = claim_for(obj, volume)
        name, namespace = wanted.metadata.name, wanted.metadata.namespace
        present = context.get(PersistentVolumeClaim, name)
        if present is not None:
            owner = controller_of(present)
            if owner is None or owner.uid != obj.metadata.uid:
                pod = f"{namespace}/{obj.metadata.name}"
                raise _NotOursError(f"PVC {namespace}/{name} was not created for pod {pod} (pod is not owner)")
            return
        await context.create(wanted)


def _name(pod: Pod, volume: Volume) -> str:
    return f"{pod.metadata.name}-{volume.name}"


def _templated(pod: Pod) -> list[Volume]:
    return [each for each in pod.spec.volumes if each.ephemeral.volume_claim_template is not None]


class _Brings(Predicate[Pod]):
    """Pods that bring templates of claims."""

    def create(self, obj: Pod) -> bool:
        return obj.metadata.deletion_timestamp is None and bool(_templated(obj))

    def update(self, old: Pod, new: Pod) -> bool:
        return old is new and self.create(new)

    def delete(self, obj: Pod) -> bool:
        return False


class _Gone(Predicate[PersistentVolumeClaim]):
    """Claims that somebody deleted."""

    def create(self, obj: PersistentVolumeClaim) -> bool:
        return False

    def update(self, old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> bool:
        return False


def _pod_of(claim: PersistentVolumeClaim) -> Iterable[Request]:
    owner = controller_of(claim)
    return (Request(claim.metadata.namespace, owner.name),) if owner is not None and owner.kind == "Pod" else ()


def add_ephemeral_volumes(manager: Manager) -> None:
    """Add the controller of ephemeral volumes."""
    (
        controller(manager, "ephemeral-volume-controller")
        .for_(Pod, _Brings())
        .watches(PersistentVolumeClaim, _pod_of, _Gone())
        .build(EphemeralVolumeReconciler(manager))
    )
