"""How a pod is in one word, as kubectl says it: its phase, or what keeps a container from running. Pure."""

from __future__ import annotations

from pilothouse.kinds.structs import Pod

__all__ = ["ready_of", "restarts_of", "status_of"]


def ready_of(pod: Pod) -> str:
    """Return how many containers are ready, of how many."""
    ready = sum(bool(one.ready) for one in pod.status.container_statuses)
    return f"{ready}/{len(pod.spec.containers)}"


def restarts_of(pod: Pod) -> int:
    """Return how often containers were started again."""
    return sum(one.restart_count for one in pod.status.container_statuses)


def status_of(pod: Pod) -> str:
    """Return the phase, or the reason for which a container waits or has ended."""
    if pod.metadata.deletion_timestamp is not None:
        return "Terminating"
    for found in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        state = found.state
        if state.waiting is not None and state.waiting.reason:
            return state.waiting.reason
        if state.terminated is not None and state.terminated.exit_code:
            return state.terminated.reason or "Error"
    return pod.status.reason or pod.status.phase or "Pending"
