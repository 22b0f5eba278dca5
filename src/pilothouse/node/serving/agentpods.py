"""The pods of an agent, for the node's server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pilothouse.kinds.structs.core_pods import Pod

__all__ = ["AgentPods"]


class _Worker(Protocol):
    @property
    def pod(self) -> Pod: ...


class AgentPods:
    """A `PodSource` over an agent's workers. workers: gives them, by the UIDs of their pods."""

    def __init__(self, workers: Callable[[], Mapping[str, _Worker]]) -> None:
        self._workers = workers

    def pods(self) -> Sequence[Pod]:
        return [each.pod for each in self._workers().values()]

    def find(self, namespace: str, name: str) -> Pod | None:
        for each in self._workers().values():
            meta = each.pod.metadata
            if meta.name == name and meta.namespace == namespace:
                return each.pod
        return None
