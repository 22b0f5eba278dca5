"""The directories of local volumes on this node: removed when the controllers ask for it by the node's annotation."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from pilothouse.client.listener import Listener
from pilothouse.client.patches import MergePatch
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import Node
from pilothouse.node.services.batches import Batches
from pilothouse.operator import Manager

from .removal import remove_folder

__all__ = ["REMOVED", "ROOT", "TO_REMOVE", "LocalDirectories"]

ROOT: Final = "pilothouse.dev/local-volumes"
"""The annotation by which a node says where its directories are made."""
TO_REMOVE: Final = "pilothouse.dev/remove-local-volumes"
"""The annotation by which the controllers say which are to go: names with commas between them."""
REMOVED: Final = "pilothouse.dev/removed-local-volumes"
"""The annotation by which the node says which of those are gone."""

_VOLUME: Final = re.compile(r"pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}_")
"""What others may have in the same root is not touched, whatever the annotation says."""
_log = get_logger("pilothouse.node.volumes")


class LocalDirectories:
    """Removes directories of volumes that are deleted, right below `root` and nowhere else.

    manager: whose cache of Nodes is followed; it runs before or after `start`. node: the node's name; the agent has to
    give its Node the annotation `ROOT` with the same root.
    """

    def __init__(self, manager: Manager, node: str, root: str, *, clock: Clock | None = None) -> None:
        self._client = manager.client
        self._node = node
        self._root = root
        self._nodes = manager.informer(Node)
        self._batches = Batches("removal of local volumes", self._sync, clock or manager.clock)
        self._listener: Listener[Any] | None = None

    async def start(self) -> None:
        """Follow the node."""
        self._listener = self._nodes.add_handler(
            on_add=lambda found, _: self._seen(found),
            on_update=lambda _, found: self._seen(found),
            name="local volumes",
        )
        self._batches.start()

    async def wait_synced(self) -> None:
        """Wait until the node is known."""
        if self._listener is not None:
            await self._listener.wait_synced()

    async def stop(self) -> None:
        """Let go of the cache; directories stay."""
        if self._listener is not None:
            self._listener.remove()
            self._listener = None
        await self._batches.stop()

    def problems(self) -> list[str]:
        """Return which directories cannot be removed, and why."""
        return [f"local volumes: {self._batches.problem}"] if self._batches.problem else []

    def _seen(self, found: Node) -> None:
        notes = found.metadata.annotations
        if found.metadata.name == self._node and notes.get(TO_REMOVE, "") != notes.get(REMOVED, ""):
            self._batches.poke()

    async def _sync(self) -> None:
        try:
            node = self._nodes.lister().get(self._node)
        except NotFound:
            return
        notes = node.metadata.annotations
        gone: list[str] = []
        failure: Exception | None = None
        for name in filter(None, notes.get(TO_REMOVE, "").split(",")):
            try:
                await asyncio.to_thread(_remove, self._root, name)
            except (OSError, ValueError) as error:
                failure = error
            else:
                gone.append(name)
        told = ",".join(gone)
        if told != notes.get(REMOVED, ""):
            _log.info("directories of volumes are removed", root=self._root, directories=gone)
            patch = MergePatch({"metadata": {"annotations": {REMOVED: told or None}}})
            await self._client.patch(Node, self._node, patch)
        if failure is not None:
            raise failure


def _remove(root: str, name: str) -> None:
    if not _VOLUME.match(name):
        raise ValueError(f'"{name}" is no directory of a volume')
    remove_folder(root, name)
