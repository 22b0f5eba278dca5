"""The provisioner of volumes that are directories of nodes, and the class that says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pilothouse.client.patches import MergePatch
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import AlreadyExists, NotFound
from pilothouse.kinds.structs import Node, PersistentVolume, PersistentVolumeClaim, StorageClass, replace
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.volumes import PROVISIONERS, SELECTED_NODE, class_of, is_delayed
from pilothouse.workloads.volumes_local import (
    CLASS,
    FINALIZER,
    PROVISIONER,
    REMOVED,
    TO_REMOVE,
    folder_on,
    host_of,
    is_to_go,
    local_class,
    local_volume,
    names_in,
    node_for,
    place_of,
    to_remove,
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
    """Deletes volumes whose claims are gone, and lets them go once their nodes have removed their directories."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def reconcile(self, obj: PersistentVolume, context: Context) -> Result | None:
        """Take the next step towards a volume's end."""
        is_deleted = obj.metadata.deletion_timestamp is not None
        is_over = obj.status.phase in ("Released", "Failed") or (is_deleted and obj.status.phase != "Bound")
        if FINALIZER not in obj.metadata.finalizers or not is_over:
            return None
        if obj.spec.persistent_volume_reclaim_policy != "Delete":
            await self._let_go(obj, context)
        elif not is_deleted:
            await context.delete(obj)
        elif await self._is_removed(obj, context):
            await self._let_go(obj, context)
        return None

    async def _let_go(self, obj: PersistentVolume, context: Context) -> None:
        left = [each for each in obj.metadata.finalizers if each != FINALIZER]
        await context.update(replace(obj, metadata__finalizers=left))

    async def _is_removed(self, obj: PersistentVolume, context: Context) -> bool:
        """Return whether a directory is gone, or nobody is there to remove it."""
        host, path = place_of(obj)
        node = await self._node(host, context)
        if node is None:
            _log.warning("the directory of a volume stays, as its node is gone", volume=obj.metadata.name, node=host)
            return True
        folder = folder_on(obj, node)
        if not folder:
            _log.warning("the directory of a volume stays, as it is not in its node's root", node=host, path=path)
            return True
        return folder in node.metadata.annotations.get(REMOVED, "").split(",")

    async def _node(self, host: str, context: Context) -> Node | None:
        """Return a node by what its volumes call it; before it is taken for gone the server is asked."""
        nodes = self._manager.informer(Node).lister().list()
        found = context.get(Node, host, "") or next((each for each in nodes if host_of(each) == host), None)
        if found is not None:
            return found
        try:
            return await context.client.get(Node, host)
        except NotFound:
            return None


class AskingReconciler(Reconciler[Node]):
    """Tells the agents of nodes which directories of volumes are to go."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def reconcile(self, obj: Node, context: Context) -> Result | None:
        """Bring the annotation up to date."""
        wanted = to_remove(obj, self._manager.informer(PersistentVolume).lister().list())
        if wanted != obj.metadata.annotations.get(TO_REMOVE, ""):
            patch = MergePatch({"metadata": {"annotations": {TO_REMOVE: wanted or None}}})
            await context.patch(obj, patch)
        return None


class _Noted(Predicate[Node]):
    """Nodes that come, go, or have said or been told something."""

    def update(self, old: Node, new: Node) -> bool:
        return old.metadata.annotations != new.metadata.annotations


class _Going(Predicate[PersistentVolume]):
    """Volumes whose directories are to be removed, or have been."""

    def create(self, obj: PersistentVolume) -> bool:
        return is_to_go(obj)

    def update(self, old: PersistentVolume, new: PersistentVolume) -> bool:
        return is_to_go(old) or is_to_go(new)

    def delete(self, obj: PersistentVolume) -> bool:
        return FINALIZER in obj.metadata.finalizers or obj.metadata.deletion_timestamp is not None


class _Reporting(Predicate[Node]):
    """Nodes whose agents have said what they are."""

    def create(self, obj: Node) -> bool:
        return bool(obj.status.node_info.kubelet_version)

    def update(self, old: Node, new: Node) -> bool:
        return self.create(new) and not self.create(old)

    def delete(self, obj: Node) -> bool:
        return False


def add_local_volumes(manager: Manager) -> None:
    """Add the provisioner, and what has directories of deleted volumes removed by the agents of their nodes."""
    volumes = manager.informer(PersistentVolume).lister()
    nodes = manager.informer(Node).lister()

    def on_node(node: Node) -> Iterable[Request]:
        """Return the volumes that a node's removals are about, or whose node has come or gone."""
        going = [each.metadata.name for each in volumes.list() if is_to_go(each) and place_of(each)[0] == host_of(node)]
        return [Request("", name) for name in {*names_in(node), *going}]

    def of_volume(volume: PersistentVolume) -> Iterable[Request]:
        """Return the nodes that a volume is on."""
        host = place_of(volume)[0]
        return [Request("", each.metadata.name) for each in nodes.list() if host_of(each) == host]

    (
        controller(manager, "local-path-class")
        .for_(StorageClass)
        .watches(Node, lambda _: (Request("", CLASS),), _Reporting())
        .build(ClassReconciler())
    )
    (controller(manager, "local-path-provisioner").for_(PersistentVolumeClaim).build(ProvisioningReconciler(manager)))
    (
        controller(manager, "local-path-remover")
        .for_(PersistentVolume)
        .watches(Node, on_node, _Noted())
        .build(RemovingReconciler(manager))
    )
    (
        controller(manager, "local-path-requests")
        .for_(Node, _Noted())
        .watches(PersistentVolume, of_volume, _Going())
        .build(AskingReconciler(manager))
    )
