"""Which run of a container a log request means, by the pod's status, and what is said where there is none. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse.kinds.status import BadRequest
from pilothouse.kinds.structs.core_pod_status import ContainerStatus as PodContainerStatus
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.runtime import ContainerStatus

__all__ = ["choose_run"]


def choose_run(pod: Pod, name: str, runs: Sequence[ContainerStatus], *, previous: bool) -> ContainerStatus:
    """Return the run of a container whose log is wanted. runs: those that the runtime has. Raises BadRequest."""
    ordered = sorted((run for run in runs if run.metadata.name == name), key=lambda run: run.metadata.attempt)
    shown = f'container "{name}" in pod "{pod.metadata.name}"'
    if previous:
        ended = [run for run in ordered if run.state == "Exited"]
        # A run that has ended is the previous one only once another has begun or is about to.
        chosen = ended[-2:-1] if ordered and ordered[-1].state == "Exited" and not _waits(pod, name) else ended[-1:]
        if not chosen:
            raise BadRequest(f'previous terminated container "{name}" in pod "{pod.metadata.name}" not found')
        return chosen[0]
    begun = [run for run in ordered if run.state != "Created"]
    if begun:
        return begun[-1]
    status = _status(pod, name)
    if status is None:
        raise BadRequest(f"{shown} is not available")
    reason = status.state.waiting.reason if status.state.waiting is not None else ""
    if reason == "ErrImagePull":
        raise BadRequest(f"{shown} is waiting to start: image can't be pulled")
    if reason == "ImagePullBackOff":
        raise BadRequest(f"{shown} is waiting to start: trying and failing to pull image")
    if reason:
        raise BadRequest(f"{shown} is waiting to start: {reason}")
    raise BadRequest(f"{shown} is waiting to start - no logs yet")


def _status(pod: Pod, name: str) -> PodContainerStatus | None:
    status = pod.status
    everything = (*status.container_statuses, *status.init_container_statuses, *status.ephemeral_container_statuses)
    return next((each for each in everything if each.name == name), None)


def _waits(pod: Pod, name: str) -> bool:
    status = _status(pod, name)
    return status is not None and status.state.waiting is not None and bool(status.state.waiting.reason)
