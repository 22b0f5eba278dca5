"""From a pod's volumes, set up in directories, to what a container's mounts are. Pure but for sub paths being made."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pilothouse.kinds.structs.core_containers import VolumeMount
from pilothouse.node.config import Mount

from .environment import AnyContainer
from .errors import MountError
from .expansion import expand_strictly
from .places import make_within

__all__ = ["Source", "mounts_of"]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A volume that is set up: a path of the machine, or memory of at most `size` bytes (0: no limit)."""

    path: str = ""
    memory: bool = False
    size: int = 0
    read_only: bool = False
    file: bool = False


def mounts_of(
    container: AnyContainer, sources: Mapping[str, Source], variables: Mapping[str, str]
) -> tuple[Mount, ...]:
    """Return a container's mounts; `variables` is its environment, where a sub path refers to it.

    Sub paths that are missing are made. Raises `MountError`.
    """
    return tuple(_mount(container, each, sources, variables) for each in container.volume_mounts)


def _mount(
    container: AnyContainer,
    wanted: VolumeMount,
    sources: Mapping[str, Source],
    variables: Mapping[str, str],
) -> Mount:
    source = sources.get(wanted.name)
    if source is None:
        raise MountError(f'container "{container.name}": volumeMounts: the pod has no volume "{wanted.name}"')
    sub_path = wanted.sub_path
    if wanted.sub_path_expr:
        try:
            sub_path = expand_strictly(wanted.sub_path_expr, variables)
        except KeyError as error:
            raise MountError(
                f'failed to expand subPathExpr of volumeMount "{wanted.name}" of container "{container.name}": '
                f"missing value for {error}"
            ) from error
        _check(sub_path, wanted, container)
    if sub_path and not source.memory:
        try:
            make_within(source.path, sub_path)
        except (OSError, ValueError) as error:
            raise _sub_path_error(wanted, container, error) from error
    return Mount(
        container_path=wanted.mount_path,
        host_path=source.path,
        sub_path=sub_path,
        read_only=bool(wanted.read_only) or source.read_only,
        recursive_read_only=wanted.recursive_read_only in {"Enabled", "IfPossible"},
        propagation=wanted.mount_propagation or "None",
        type="tmpfs" if source.memory else "bind",
        name=wanted.name,
        size=source.size,
    )


def _check(path: str, wanted: VolumeMount, container: AnyContainer) -> None:
    if path.startswith("/"):
        raise _sub_path_error(wanted, container, f"subPath must not be an absolute path: {path}")
    if ".." in path.split("/"):
        raise _sub_path_error(wanted, container, f"subPath must not contain '..': {path}")


def _sub_path_error(wanted: VolumeMount, container: AnyContainer, why: object) -> MountError:
    return MountError(
        f'failed to prepare subPath for volumeMount "{wanted.name}" of container "{container.name}": {why}'
    )
