"""The controllers of volumes: claims and volumes find each other, and neither goes while it is used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeVar

from pilothouse.client import ignore_not_found
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import PersistentVolume, PersistentVolumeClaim, Pod, StorageClass, replace
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.pods import is_finished
from pilothouse.workloads.volumes import (
    PROVISIONED_BY,
    PROVISIONERS,
    SELECTED_NODE,
    best_volume,
    bound_claim,
    bound_status,
    bound_volume,
    class_of,
    default_class,
    is_bind_completed,
    is_bound_to,
    is_delayed,
    mismatch,
    unbound_volume,
    undeletable,
)

__all__ = ["ClaimReconciler", "VolumeReconciler", "add_claim_protection", "add_volume_protection", "add_volumes"]

_COMPONENT: Final = "persistentvolume-controller"
_BY_CLAIM: Final = "workloads-claim"
_RESYNC_SECONDS: Final = 15.0
"""After which what waits is looked at again, as in Kubernetes."""
_CLAIM_FINALIZER: Final = "kubernetes.io/pvc-protection"
_VOLUME_FINALIZER: Final = "kubernetes.io/pv-protection"
_IN_TREE: Final = "kubernetes.io/"
_Phase = Literal["Available", "Bound", "Failed", "Pending", "Released"]
_log = get_logger("pilothouse.workloads.volumes")

R = TypeVar("R", PersistentVolume, PersistentVolumeClaim)


class ClaimReconciler(Reconciler[PersistentVolumeClaim]):
    """Finds volumes for claims."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._events = manager.recorder(_COMPONENT)

    async def reconcile(self, obj: PersistentVolumeClaim, context: Context) -> Result | None:
        """Bind a claim, or say why it waits."""
        if is_bind_completed(obj):
            return await self._bound(obj, context)
        name = obj.spec.volume_name
        if not name:
            return await self._unbound(obj, context)
        volume = context.get(PersistentVolume, name)
        if volume is None:
            return await self._pending(obj, context)
        if volume.spec.claim_ref is None:
            why = mismatch(volume, obj)
            if why:
                told = f'Cannot bind to requested volume "{name}": {why}'
                self._events.warning(obj, "VolumeMismatch", told)
                return await self._pending(obj, context)
        elif not is_bound_to(volume, obj):
            self._events.warning(obj, "FailedBinding", f'volume "{name}" already bound to a different claim.')
            return await self._pending(obj, context)
        await self._bind(obj, volume, context)
        return None

    async def _unbound(self, obj: PersistentVolumeClaim, context: Context) -> Result | None:
        found = context.get(StorageClass, class_of(obj)) if class_of(obj) else None
        delayed = is_delayed(found)
        volume = best_volume(obj, self._volumes(context), delayed)
        if volume is not None:
            await self._bind(obj, volume, context)
            return None
        if await self._take_default_class(obj, context):
            return None
        if delayed and SELECTED_NODE not in obj.metadata.annotations:
            self._tell_waiting(obj)
        elif class_of(obj):
            return await self._provision(obj, found, context)
        else:
            told = "no persistent volumes available for this claim and no storage class is set"
            self._events.normal(obj, "FailedBinding", told)
        return await self._pending(obj, context)

    def _volumes(self, context: Context) -> list[PersistentVolume]:
        cached = self._manager.informer(PersistentVolume).lister().list()
        fresh = [context.get(PersistentVolume, each.metadata.name, "") for each in cached]
        return [each for each in fresh if each is not None]

    async def _take_default_class(self, obj: PersistentVolumeClaim, context: Context) -> bool:
        if obj.spec.storage_class_name is not None or class_of(obj):
            return False
        found = default_class(self._manager.informer(StorageClass).lister().list())
        if found is None:
            return False
        await context.update(replace(obj, spec__storage_class_name=found.metadata.name))
        return True

    def _tell_waiting(self, obj: PersistentVolumeClaim) -> None:
        pods = [pod.metadata.name for pod in self._users(obj) if not is_finished(pod) and not pod.spec.node_name]
        if not pods:
            told = "waiting for first consumer to be created before binding"
            self._events.normal(obj, "WaitForFirstConsumer", told)
            return
        told = f"waiting for pods {','.join(pods)} to be scheduled"
        if len(pods) == 1:
            told = f"waiting for pod {pods[0]} to be scheduled"
        self._events.normal(obj, "WaitForPodScheduled", told)

    def _users(self, obj: PersistentVolumeClaim) -> list[Pod]:
        key = f"{obj.metadata.namespace}/{obj.metadata.name}"
        return self._manager.informer(Pod).indexer.by_index(_BY_CLAIM, key)

    async def _provision(
        self, obj: PersistentVolumeClaim, found: StorageClass | None, context: Context
    ) -> Result | None:
        """Ask the class's provisioner for a volume, by an annotation."""
        if found is None:
            told = f'storageclass.storage.k8s.io "{class_of(obj)}" not found'
            self._events.warning(obj, "ProvisioningFailed", told)
            return Result(requeue_after=_RESYNC_SECONDS)
        if found.provisioner.startswith(_IN_TREE):
            told = f"no volume plugin matched name: {found.provisioner}"
            self._events.warning(obj, "ProvisioningFailed", told)
            return Result(requeue_after=_RESYNC_SECONDS)
        wanted = dict.fromkeys(PROVISIONERS, found.provisioner)
        if not wanted.items() <= obj.metadata.annotations.items():
            notes = {**obj.metadata.annotations, **wanted}
            obj = await context.update(replace(obj, metadata__annotations=notes))
        told = (
            f"Waiting for a volume to be created either by the external provisioner '{found.provisioner}' or manually "
            "by the system administrator. If volume creation is delayed, please verify that the provisioner is running "
            "and correctly registered."
        )
        self._events.normal(obj, "ExternalProvisioning", told)
        return Result(requeue_after=_RESYNC_SECONDS)

    async def _pending(self, obj: PersistentVolumeClaim, context: Context) -> Result | None:
        if obj.status.phase != "Pending":
            changed = replace(obj, status__phase="Pending", status__access_modes=(), status__capacity={})
            await context.update_status(changed)
        return Result(requeue_after=_RESYNC_SECONDS)

    async def _bind(self, obj: PersistentVolumeClaim, volume: PersistentVolume, context: Context) -> None:
        """Make both say that they belong together: the volume first, which decides between claims."""
        made = bound_volume(volume, obj)
        if made is not volume:
            made = await context.update(made)
        if made.status.phase != "Bound":
            made = await context.update_status(
                replace(made, status__phase="Bound", status__message="", status__reason="")
            )
        claim = bound_claim(obj, made)
        if claim is not obj:
            claim = await context.update(claim)
        told = bound_status(claim, made)
        if told is not claim:
            await context.update_status(told)

    async def _bound(self, obj: PersistentVolumeClaim, context: Context) -> Result | None:
        """See that a claim that was bound still has its volume."""
        name = obj.spec.volume_name
        volume = context.get(PersistentVolume, name) if name else None
        if not name:
            told = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
            await self._lost(obj, "ClaimLost", told, context)
        elif volume is None:
            told = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            await self._lost(obj, "ClaimLost", told, context)
        elif volume.spec.claim_ref is None or volume.spec.claim_ref.uid == obj.metadata.uid:
            await self._bind(obj, volume, context)
        else:
            told = "Two claims are bound to the same volume, this one is bound incorrectly"
            await self._lost(obj, "ClaimMisbound", told, context)
        return None

    async def _lost(self, obj: PersistentVolumeClaim, reason: str, told: str, context: Context) -> None:
        if obj.status.phase != "Lost":
            lost = replace(obj, status__phase="Lost", status__access_modes=(), status__capacity={})
            await context.update_status(lost)
            self._events.warning(obj, reason, told)


class VolumeReconciler(Reconciler[PersistentVolume]):
    """Says of volumes whose they are, and what becomes of those whose claim is gone."""

    def __init__(self, manager: Manager) -> None:
        self._events = manager.recorder(_COMPONENT)

    async def reconcile(self, obj: PersistentVolume, context: Context) -> Result | None:
        """Bring a volume's phase up to date."""
        reference = obj.spec.claim_ref
        if reference is None or not reference.uid:
            await self._phase(obj, "Available", context)
            return None
        claim = await self._claim(obj, reference.namespace, reference.name, reference.uid, context)
        if claim is None:
            await self._released(obj, context)
        elif claim.spec.volume_name == obj.metadata.name:
            await self._phase(obj, "Bound", context)
        elif claim.spec.volume_name:
            if PROVISIONED_BY in obj.metadata.annotations and obj.spec.persistent_volume_reclaim_policy == "Delete":
                await self._released(obj, context)
            else:
                await self._phase(await context.update(unbound_volume(obj)), "Available", context)
        return None

    async def _claim(
        self, obj: PersistentVolume, namespace: str, name: str, uid: str, context: Context
    ) -> PersistentVolumeClaim | None:
        """Return the very claim that a volume names; before it is taken for gone the server is asked."""
        found = context.get(PersistentVolumeClaim, name, namespace)
        if found is not None and found.metadata.uid == uid:
            return found
        if found is None and obj.status.phase in ("Released", "Failed"):
            return None
        try:
            found = await context.client.get(PersistentVolumeClaim, name, namespace)
        except NotFound:
            return None
        return found if found.metadata.uid == uid else None

    async def _released(self, obj: PersistentVolume, context: Context) -> None:
        if obj.status.phase not in ("Released", "Failed"):
            obj = await self._phase(obj, "Released", context)
        policy = obj.spec.persistent_volume_reclaim_policy
        if PROVISIONED_BY in obj.metadata.annotations or obj.metadata.deletion_timestamp is not None:
            return  # whoever made it deletes it
        if policy == "Delete" and obj.status.phase != "Failed":
            await self._fail(obj, "VolumeFailedDelete", undeletable(obj), context)
        elif policy == "Recycle" and obj.status.phase != "Failed":
            await self._fail(obj, "VolumeFailedRecycle", "no volume plugin matched", context)

    async def _fail(self, obj: PersistentVolume, reason: str, told: str, context: Context) -> None:
        await context.update_status(replace(obj, status__phase="Failed", status__message=told))
        self._events.warning(obj, reason, told)

    async def _phase(self, obj: PersistentVolume, phase: _Phase, context: Context) -> PersistentVolume:
        if obj.status.phase == phase:
            return obj
        return await context.update_status(replace(obj, status__phase=phase, status__message=""))


def add_volumes(manager: Manager) -> None:
    """Add the controllers that bind claims and volumes."""

    def waiting(volume: PersistentVolume) -> Iterable[Request]:
        """Return the claims that a volume may be for: its own, and while it is free all that wait."""
        reference = volume.spec.claim_ref
        own = [] if reference is None else [Request(reference.namespace, reference.name)]
        if volume.status.phase != "Available":
            return own
        claims = manager.informer(PersistentVolumeClaim).lister().list()
        return [*own, *(Request.of(each) for each in claims if not is_bind_completed(each))]

    def of_class(found: StorageClass) -> Iterable[Request]:
        claims = manager.informer(PersistentVolumeClaim).lister().list()
        return [Request.of(each) for each in claims if not is_bind_completed(each)]

    def volume_of(claim: PersistentVolumeClaim) -> Iterable[Request]:
        return (Request("", claim.spec.volume_name),) if claim.spec.volume_name else ()

    _index_by_claim(manager)
    (
        controller(manager, "persistentvolume-binder-controller")
        .for_(PersistentVolumeClaim)
        .watches(PersistentVolume, waiting)
        .watches(StorageClass, of_class)
        .build(ClaimReconciler(manager))
    )
    (
        controller(manager, "persistentvolume-phase-controller")
        .for_(PersistentVolume)
        .watches(PersistentVolumeClaim, volume_of)
        .build(VolumeReconciler(manager))
    )


# Protection


async def _with_finalizer(obj: R, finalizer: str, context: Context) -> None:
    if finalizer not in obj.metadata.finalizers:
        made = replace(obj, metadata__finalizers=[*obj.metadata.finalizers, finalizer])
        await ignore_not_found(context.update(made))


async def _without_finalizer(obj: R, finalizer: str, context: Context) -> None:
    if finalizer in obj.metadata.finalizers:
        left = [each for each in obj.metadata.finalizers if each != finalizer]
        await ignore_not_found(context.update(replace(obj, metadata__finalizers=left)))


class ClaimProtector(Reconciler[PersistentVolumeClaim]):
    """Keeps claims while pods on nodes use them."""

    async def reconcile(self, obj: PersistentVolumeClaim, context: Context) -> Result | None:
        """Add the finalizer, or remove it from a claim that goes and that no pod uses."""
        if obj.metadata.deletion_timestamp is None:
            await _with_finalizer(obj, _CLAIM_FINALIZER, context)
        elif not await self._is_used(obj, context):
            await _without_finalizer(obj, _CLAIM_FINALIZER, context)
        return None

    async def _is_used(self, obj: PersistentVolumeClaim, context: Context) -> bool:
        key = f"{obj.metadata.namespace}/{obj.metadata.name}"
        if any(_uses(pod, obj) for pod in context.indexed(Pod, _BY_CLAIM, key)):
            return True
        # The cache may not know of a pod that was made just now.
        pods = await context.client.list_all(Pod, obj.metadata.namespace)
        return any(_uses(pod, obj) for pod in pods)


def _uses(pod: Pod, claim: PersistentVolumeClaim) -> bool:
    return bool(pod.spec.node_name) and claim.metadata.name in _claims_of(pod)


def _claims_of(pod: Pod) -> list[str]:
    found = []
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim.claim_name:
            found.append(volume.persistent_volume_claim.claim_name)
        elif volume.ephemeral.volume_claim_template is not None:
            found.append(f"{pod.metadata.name}-{volume.name}")
    return found


class VolumeProtector(Reconciler[PersistentVolume]):
    """Keeps volumes while they are bound."""

    async def reconcile(self, obj: PersistentVolume, context: Context) -> Result | None:
        """Add the finalizer, or remove it from a volume that goes and is not bound."""
        if obj.metadata.deletion_timestamp is None:
            await _with_finalizer(obj, _VOLUME_FINALIZER, context)
        elif obj.status.phase != "Bound":
            await _without_finalizer(obj, _VOLUME_FINALIZER, context)
        return None


class _Leaving(Predicate[Pod]):
    """Pods that use claims no more."""

    def create(self, obj: Pod) -> bool:
        return False

    def update(self, old: Pod, new: Pod) -> bool:
        return is_finished(new) and not is_finished(old)


def _index_by_claim(manager: Manager) -> None:
    def by_claim(pod: Pod) -> Iterable[str]:
        return [f"{pod.metadata.namespace}/{name}" for name in _claims_of(pod)]

    manager.index(Pod, _BY_CLAIM, by_claim)


def add_claim_protection(manager: Manager) -> None:
    """Add the controller that keeps claims that are used."""

    def claims_of(pod: Pod) -> Iterable[Request]:
        return [Request(pod.metadata.namespace, name) for name in _claims_of(pod)]

    _index_by_claim(manager)
    (
        controller(manager, "persistentvolumeclaim-protection-controller")
        .for_(PersistentVolumeClaim)
        .watches(Pod, claims_of, _Leaving())
        .build(ClaimProtector())
    )


def add_volume_protection(manager: Manager) -> None:
    """Add the controller that keeps volumes that are bound."""
    controller(manager, "persistentvolume-protection-controller").for_(PersistentVolume).build(VolumeProtector())
