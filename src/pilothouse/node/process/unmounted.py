"""Volumes where a container has no mounts of its own: what names a place in one is given the machine's path. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from pilothouse.node.config import Mount

__all__ = ["machine_path", "machine_paths"]


def machine_path(text: str, mounts: Iterable[Mount]) -> str:
    """Return where a path in a volume is on the machine; a text that is none is returned as it is.

    Memory for a pod has no place on the machine, and is left out.
    """
    for mount in sorted(mounts, key=lambda mount: len(mount.container_path), reverse=True):
        path = mount.container_path.rstrip("/")
        if path and mount.host_path and (text == path or text.startswith(f"{path}/")):
            below = text[len(path) :].lstrip("/")
            return posixpath.join(mount.host_path, *filter(None, (mount.sub_path, below)))
    return text


def machine_paths(texts: Iterable[str], mounts: Sequence[Mount]) -> tuple[str, ...]:
    """Return texts with those that are paths in volumes as `machine_path` has them."""
    return tuple(machine_path(text, mounts) for text in texts)
