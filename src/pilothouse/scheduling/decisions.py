"""What the scheduler has decided, for someone else to carry out."""

from __future__ import annotations

from dataclasses import dataclass

from pilothouse.kinds.structs import Pod

from .framework import Volumes

__all__ = ["Bind", "Decision", "Failed", "Gated", "Skipped"]


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind the pod to the node, once what its volumes need is written. Then call `bound` or `bind_failed`."""

    pod: Pod
    node: str
    volumes: Volumes | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """No node was found. The pod stays in the queue.

    message: for the condition PodScheduled and the event FailedScheduling. nominated: the node on which room is being
    made, "" to clear what is there, None to leave it. victims: pods to delete. cleared: pods whose nomination is void.
    """

    pod: Pod
    message: str
    reason: str = "Unschedulable"
    nominated: str | None = None
    victims: tuple[Pod, ...] = ()
    cleared: tuple[Pod, ...] = ()
    plugins: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Gated:
    """The pod is kept out of the queue."""

    pod: Pod
    message: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """The pod was not tried."""

    pod: Pod
    message: str


Decision = Bind | Failed | Gated | Skipped
