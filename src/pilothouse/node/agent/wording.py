"""What a kubelet of Kubernetes 1.36 says in events, word for word. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .model import ProbeKind

__all__ = [
    "CREATED",
    "NO_BACKOFF",
    "STARTED",
    "failed_probe",
    "hook_failed",
    "missing_secrets",
    "present",
    "pull_failure",
    "pulled",
    "unhealthy",
]

CREATED = "Container created"
STARTED = "Container started"
NO_BACKOFF = frozenset({"InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
"""Reasons of images that are looked at again soon: no registry is asked."""

_MAX_OUTPUT = 10_240


def present(image: str) -> str:
    """Say that an image need not be pulled."""
    return f'Container image "{image}" already present on machine and can be accessed by the pod'


def pulled(image: str, seconds: float, waited: float, size: int) -> str:
    """Say that an image was pulled, after so many seconds and those with waiting."""
    took, all_of_it = _duration(seconds), _duration(waited)
    return f'Successfully pulled image "{image}" in {took} ({all_of_it} including waiting). Image size: {size} bytes.'


def missing_secrets(names: Sequence[str]) -> tuple[str, str]:
    """Return the reason and text of the event about pull secrets that are not to be had."""
    listed = ", ".join(names)
    told = f"Unable to retrieve some image pull secrets ({listed}); attempting to pull the image may not succeed."
    return "FailedToRetrieveImagePullSecret", told


def pull_failure(reason: str, image: str, message: str) -> tuple[str, str] | None:
    """Return the reason and text of the event about an image that is not to be had."""
    if reason == "ErrImageNeverPull":
        return "ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never'
    if reason in {"InvalidImageName", "ImageInspectError"}:
        return "InspectFailed", message
    return "Failed", f'Failed to pull image "{image}": {message}'


def unhealthy(kind: ProbeKind, result: str, output: str) -> str:
    """Say how a probe failed."""
    name, cut = kind.capitalize(), output[:_MAX_OUTPUT]
    if result == "error":
        return f"{name} probe errored and resulted in unknown state: {cut}"
    return f"{name} probe failed: {cut}"


def failed_probe(name: str, kind: ProbeKind, *, restarts: bool) -> str:
    """Say why a container is killed."""
    text = f"Container {name} failed {kind} probe"
    return f"{text}, will be restarted" if restarts else text


def hook_failed(hook: str) -> str:
    """Say that a hook failed; why is in the container's state."""
    return f"{hook} failed"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{round(seconds, 3):g}s"
    return f"{int(seconds // 60)}m{round(seconds % 60, 3):g}s"
