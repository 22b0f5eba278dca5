"""From a runtime's container to what a pod's life knows of it."""

from __future__ import annotations

import asyncio

from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.runtime import ContainerStatus

from .facts import container_named
from .model import Record
from .termination import read_message

__all__ = ["record_of"]

_NS = 1_000_000_000


async def record_of(status: ContainerStatus, pod: Pod, root: str) -> Record:
    """Return the record of a container, with the message that it left."""
    state = status.state if status.state != "Unknown" else "Exited"
    message = status.message
    container = container_named(pod, status.metadata.name)
    if state == "Exited" and container is not None and not message:
        message = await asyncio.to_thread(
            read_message,
            root,
            pod,
            container,
            status.metadata.attempt,
            failed=status.exit_code != 0,
            log=status.log_path,
        )
    return Record(
        id=status.id,
        attempt=status.metadata.attempt,
        state=state,
        started_at=status.started_at / _NS,
        finished_at=status.finished_at / _NS,
        exit_code=status.exit_code,
        reason=status.reason,
        message=message,
        image=status.image,
        image_id=status.image_id,
    )
