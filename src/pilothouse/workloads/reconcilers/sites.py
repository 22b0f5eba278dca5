"""What matters of all nodes, kept beside their cache: reading thousands of nodes for each reconcile would cost much."""

from __future__ import annotations

from collections.abc import Mapping

from pilothouse.client.packed import unpacked
from pilothouse.kinds.structs import Node
from pilothouse.operator import Manager
from pilothouse.workloads.daemonsets_nodes import Site

__all__ = ["Sites"]


class Sites:
    """The nodes of a manager's cache by name; one that has not changed in what matters stays the same object."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._known: dict[str, tuple[str, Site]] = {}

    def all(self) -> Mapping[str, Site]:
        """Return all nodes by name."""
        entries = self._manager.cached(Node).indexer.entries
        made: dict[str, tuple[str, Site]] = {}
        for name, entry in entries.items():
            version = entry.metadata.resource_version
            known = self._known.get(name)
            if known is None or known[0] != version:
                found = Site.of(unpacked(entry))
                known = version, (known[1] if known is not None and known[1] == found else found)
            made[name] = known
        self._known = made
        return {name: site for name, (_, site) in made.items()}
