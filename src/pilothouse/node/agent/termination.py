"""The message that a container leaves when it ends: from a file of its own, else from the end of its log."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.config import Mount

from .facts import AnyContainer

__all__ = ["message_mount", "message_path", "read_message"]

_MAX_BYTES = 4096
_LOG_BYTES, _LOG_LINES = 2048, 80
_DEFAULT = "/dev/termination-log"


def message_path(root: str, pod: Pod, name: str, attempt: int) -> str:
    """Return the machine's file that a run writes its message to."""
    return f"{root}/pods/{pod.metadata.uid}/containers/{name}/{attempt}"


def message_mount(root: str, pod: Pod, container: AnyContainer, attempt: int) -> Sequence[Mount]:
    """Make the file and return how it is mounted."""
    path = message_path(root, pod, container.name, attempt)
    os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    with open(path, "wb"):
        pass
    os.chmod(path, 0o666)  # noqa: S103  whoever the container runs as writes to it
    return (Mount(container_path=container.termination_message_path or _DEFAULT, host_path=path),)


def read_message(root: str, pod: Pod, container: AnyContainer, attempt: int, *, failed: bool, log: str) -> str:
    """Return the message of a run that has ended."""
    try:
        with open(message_path(root, pod, container.name, attempt), "rb") as file:
            text = file.read(_MAX_BYTES).decode(errors="replace")
    except OSError:
        text = ""
    if not text and failed and container.termination_message_policy == "FallbackToLogsOnError" and log:
        text = _tail(log)
    return text


def _tail(path: str) -> str:
    """Return the last lines of a log, without their times and streams."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 4 * _LOG_BYTES, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    found = [line.split(" ", 3)[3] + "\n" for line in lines[-_LOG_LINES:] if line.count(" ") >= 3]
    return "".join(found)[-_LOG_BYTES:]
