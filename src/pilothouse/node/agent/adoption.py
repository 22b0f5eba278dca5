"""What an earlier agent left in the runtime: its pods, by uid, so that what runs is looked after and not begun anew."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.runtime import ContainerStatus, Runtime, SandboxStatus

from .model import Adopted
from .records import record_of

__all__ = ["Leftover", "leftovers"]


class Leftover:
    """The sandboxes and containers of one pod."""

    def __init__(self) -> None:
        self.sandboxes: list[SandboxStatus] = []
        self.containers: list[ContainerStatus] = []

    @property
    def ids(self) -> list[str]:
        """The ids of the sandboxes."""
        return [each.id for each in self.sandboxes]

    @property
    def name(self) -> str:
        """The pod's namespace and name."""
        found = self.sandboxes[-1].metadata
        return f"{found.namespace}/{found.name}"

    async def event(self, pod: Pod, root: str) -> Adopted:
        """Return what the pod's life is told: its newest sandbox if that is ready, and the two newest runs of each."""
        self.sandboxes.sort(key=lambda each: (each.metadata.attempt, each.created_at))
        newest = self.sandboxes[-1]
        ready = newest.state == "Ready"
        ordered = sorted(self.containers, key=lambda each: (each.metadata.attempt, each.created_at))
        records = [(each.metadata.name, await record_of(each, pod, root)) for each in ordered]
        return Adopted(
            sandbox_id=newest.id if ready else "",
            ip=newest.ip if ready else "",
            attempt=newest.metadata.attempt,
            records=tuple(records),
        )


async def leftovers(runtime: Runtime) -> dict[str, Leftover]:
    """Return what the runtime has, by the pods' uids. Raises `NodeError`."""
    found: dict[str, Leftover] = {}
    owners: dict[str, Leftover] = {}
    sandboxes: Sequence[SandboxStatus] = await runtime.list_sandboxes()
    for sandbox in sandboxes:
        leftover = found.setdefault(sandbox.metadata.uid, Leftover())
        leftover.sandboxes.append(sandbox)
        owners[sandbox.id] = leftover
    for container in await runtime.list_containers():
        owner = owners.get(container.sandbox_id)
        if owner is not None:
            owner.containers.append(container)
    return found
