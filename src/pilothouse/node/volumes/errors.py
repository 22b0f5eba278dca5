"""What can be wrong with a pod's volumes and environment, in the words of a kubelet."""

from __future__ import annotations

from pilothouse.node.agent.ports import ConfigError, MountError

__all__ = ["ConfigError", "MountError", "mount_failed", "not_processed"]


def mount_failed(volume: str, why: object) -> MountError:
    """Say why one volume could not be set up."""
    return MountError(f'MountVolume.SetUp failed for volume "{volume}" : {why}')


def not_processed(volume: str, why: object) -> MountError:
    """Say why it is not even known what a volume is, as with a claim that is not bound."""
    return MountError(
        f"Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], "
        f"failed to process volumes=[{volume}]: {why}"
    )
