"""The provisioner of volumes that are directories of nodes, and the class that says so."""

from __future__ import annotations

from typing import Final

from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import AlreadyExists
from pilothouse.kinds.structs import Node, PersistentVolume, PersistentVolumeClaim, StorageClass, replace
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.volumes import PROVISIONERS, SELECTED_NODE, class_of, is_delayed
from pilothouse.workloads.volumes_local import (
    CLASS,
    FINALIZER,
    PROVISIONER,
    Directories,
    local_class,
    local_volume,
    node_for,
    place_of,
)

__all__ = ["add_local_volumes"]

_RETRY_SECONDS: Final = 10.0
_log = get_logger("pilothouse.workloads.localvolumes")


class ClassReconciler(Reconciler[StorageClass]):
    """Makes the class once, when the first node's agent has said what it is; who deletes it has it no more."""

    def __init__(self) -> None:
        self._is_made = False

    async def reconcile(self, obj: StorageClass, context: Context) -> Result | None:
        """Take note of the class."""
        if obj.metadata.name == CLASS:
            self._is_made = True
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Make the class where there has been none since the start."""
        if request.name == CLASS and not self._is_made:
            self._is_made = True
            try:
                await context.create(local_class())
            except AlreadyExists:
                _log.debug("the class of local volumes is there already", storage_class=CLASS)
        return None


class ProvisioningReconciler(Reconciler[PersistentVolumeClaim]):
    """Makes volumes for claims that ask for one by their class."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._events = manager.recorder(PROVISIONER)
        self._made = 0

    async def reconcile(self, obj: PersistentVolumeClaim, context: Context) -> Result | None:
        """Make a claim's volume; the binder does the rest."""
        notes = obj.metadata.annotations
        if obj.spec.volume_name or obj.metadata.deletion_timestamp is not None:
            return None
        if not any(notes.get(each) == PROVISIONER for each in PROVISIONERS):
            return None
        found = context.get(StorageClass, class_of(obj))
        if found is None or found.provisioner != PROVISIONER:
            return None
        if obj.spec.volume_mode == "Block":
            self._events.warning(obj, "ProvisioningFailed", "local-path volumes are directories; want Filesystem")
            return None
        node = self._node(obj, found, context)
        if node is None:
            self._events.warning(obj, "ProvisioningFailed", "there is no node that is ready for a volume")
            return Result(requeue_after=_RETRY_SECONDS)
        volume = local_volume(obj, found, node)
        if context.get(PersistentVolume, volume.metadata.name, "") is None:
            try:
                await context.create(volume)
            except AlreadyExists:
                return None
            self._made += 1
            told = f"Successfully provisioned volume {volume.metadata.name}"
            self._events.normal(obj, "ProvisioningSucceeded", told)
        return None

    def _node(self, obj: PersistentVolumeClaim, found: StorageClass, context: Context) -> Node | None:
        selected = obj.metadata.annotations.get(SELECTED_NODE)
        if selected or is_delayed(found):
            return context.get(Node, selected, "") if selected else None
        return node_for(self._manager.informer(Node).lister().list(), self._made)


class RemovingReconciler(Reconciler[PersistentVolume]):
    """Removes the directories of volumes whose claims are gone, then the volumes."""

    def __init__(self, directories: Directories | None) -> None:
        self._directories = directories

    async def reconcile(self, obj: PersistentVolume, context: Context) -> Result | None:
        """Remove what is released and to be deleted."""
        if FINALIZER not in obj.metadata.finalizers or obj.status.phase not in ("Released", "Failed"):
            return None
        if obj.spec.persistent_volume_reclaim_policy == "Delete":
            node, path = place_of(obj)
            if self._directories is None:
                _log.info("the directory of a volume stays, as nothing here can remove it", node=node, path=path)
            else:
                await self._directories.remove(node, path)
        left = [each for each in obj.metadata.finalizers if each != FINALIZER]
        changed = await context.update(replace(obj, metadata__finalizers=left))
        if obj.spec.persistent_volume_reclaim_policy == "Delete":
            await context.delete(changed)
        return None


class _Reporting(Predicate[Node]):
    """Nodes whose agents have said what they are."""

    def create(self, obj: Node) -> bool:
        return bool(obj.status.node_info.kubelet_version)

    def update(self, old: Node, new: Node) -> bool:
        return self.create(new) and not self.create(old)

    def delete(self, obj: Node) -> bool:
        return False


def add_local_volumes(manager: Manager, directories: Directories | None = None) -> None:
    """Add the provisioner. directories: removes those of volumes that are deleted; without it they stay."""
    (
        controller(manager, "local-path-class")
        .for_(StorageClass)
        .watches(Node, lambda _: (Request("", CLASS),), _Reporting())
        .build(ClassReconciler())
    )
    (controller(manager, "local-path-provisioner").for_(PersistentVolumeClaim).build(ProvisioningReconciler(manager)))
    controller(manager, "local-path-remover").for_(PersistentVolume).build(RemovingReconciler(directories))
