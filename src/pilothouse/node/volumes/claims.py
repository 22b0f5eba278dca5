"""Claims of pods: which directory of this machine a bound claim's volume is."""

from __future__ import annotations

import contextlib
import os
from typing import Final

import msgspec

from pilothouse.client import Client
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.structs.core_storage import PersistentVolume, PersistentVolumeClaim
from pilothouse.kinds.structs.core_volumes import Volume

from .errors import mount_failed, not_processed
from .payload import kind_of
from .places import HostPathError, check_host_path

__all__ = ["Claimed", "claimed"]

_PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
_LOCAL_PATH: Final = "pilothouse.dev/local-path"


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A directory that a claim gives a pod; `local` volumes get the pod's group, host paths do not."""

    path: str
    name: str
    read_only: bool = False
    local: bool = False


async def claimed(client: Client, pod: Pod, volume: Volume) -> Claimed:
    """Return what a volume's claim gives. Raises MountError while it gives nothing, ApiStatus, ClientError."""
    namespace = pod.metadata.namespace
    if kind_of(volume) == "ephemeral":
        name, read_only = f"{pod.metadata.name}-{volume.name}", False
    else:
        name, read_only = volume.persistent_volume_claim.claim_name, bool(volume.persistent_volume_claim.read_only)
    failed = f"error processing PVC {namespace}/{name}"
    try:
        claim = await client.get(PersistentVolumeClaim, name, namespace)
    except NotFound as error:
        text = f'failed to fetch PVC from API server: persistentvolumeclaims "{name}" not found'
        raise not_processed(volume.name, f"{failed}: {text}") from error
    if kind_of(volume) == "ephemeral" and all(each.uid != pod.metadata.uid for each in claim.metadata.owner_references):
        raise not_processed(
            volume.name, f"PVC {namespace}/{name} was not created for pod {namespace}/{pod.metadata.name}"
        )
    if claim.metadata.deletion_timestamp is not None:
        raise not_processed(volume.name, f"{failed}: PVC is being deleted")
    if claim.status.phase != "Bound" or not claim.spec.volume_name:
        raise not_processed(volume.name, f"{failed}: PVC is not bound")
    if claim.spec.volume_mode == "Block":
        raise not_processed(volume.name, f"{failed}: volumeMode Block is not supported; use Filesystem")
    return await _directory(client, claim, volume.name, read_only=read_only)


async def _directory(client: Client, claim: PersistentVolumeClaim, shown: str, *, read_only: bool) -> Claimed:
    name = claim.spec.volume_name
    try:
        found = await client.get(PersistentVolume, name)
    except NotFound as error:
        raise not_processed(shown, f'persistentvolume "{name}" not found') from error
    reference = found.spec.claim_ref
    if reference is None or reference.uid != claim.metadata.uid:
        raise not_processed(
            shown, f"volume {name} and claim {claim.metadata.namespace}/{claim.metadata.name} are not bound"
        )
    if found.spec.local.path:
        try:
            check_host_path(found.spec.local.path, "Directory")
        except HostPathError:
            raise mount_failed(name, f'path "{found.spec.local.path}" does not exist') from None
        return Claimed(path=found.spec.local.path, name=name, read_only=read_only, local=True)
    if found.spec.host_path.path:
        try:
            if found.metadata.annotations.get(_PROVISIONED_BY) == _LOCAL_PATH:
                _make_for_all(found.spec.host_path.path)
            check_host_path(found.spec.host_path.path, found.spec.host_path.type or "")
        except HostPathError as error:
            raise mount_failed(name, error) from error
        return Claimed(path=found.spec.host_path.path, name=name, read_only=read_only)
    kind = "csi" if found.spec.csi.driver else "nfs" if found.spec.nfs.server else "this kind of volume"
    raise mount_failed(
        name, f"{kind}: this node has no driver for it; use a local-path claim, local or hostPath instead"
    )


def _make_for_all(path: str) -> None:
    """Make a provisioned directory that any user of a pod may write to: nobody says beforehand who that will be."""
    if os.path.lexists(path):
        return
    fresh = f"{path}.new"
    with contextlib.suppress(OSError):  # whatever is wrong, the check of the path says
        os.makedirs(fresh, 0o700, exist_ok=True)
        os.chmod(fresh, 0o777)  # noqa: S103  # those outside of the pod do not get through the directory above
        os.rename(fresh, path)
