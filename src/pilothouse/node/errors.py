"""The errors of node runtimes, as a tree; each has the reason that a kubelet shows for it.

NodeError
├── RuntimeUnavailable            the runtime or what it stands on is not there
├── NotFound                      no such sandbox, container or image
├── InvalidConfig                 a configuration that cannot be carried out
├── SandboxError                  FailedCreatePodSandBox
├── AddressesExhausted            FailedCreatePodSandBox: the node's range has no address left
├── CreateContainerError          CreateContainerError
├── StartError                    RunContainerError
├── ExecError                     a command could not be run in a container; `exit_code` 126 or 127
└── ImageError
    ├── InvalidImageName          InvalidImageName
    ├── ImageNeverPull            ErrImageNeverPull
    ├── ImagePullError            ErrImagePull
    │   └── RegistryUnavailable   RegistryUnavailable
    └── ImageInspectError         ImageInspectError
"""

from __future__ import annotations

__all__ = [
    "AddressesExhausted",
    "CreateContainerError",
    "ExecError",
    "ImageError",
    "ImageInspectError",
    "ImageNeverPull",
    "ImagePullError",
    "InvalidConfig",
    "InvalidImageName",
    "NodeError",
    "NotFound",
    "RegistryUnavailable",
    "RuntimeUnavailable",
    "SandboxError",
    "StartError",
]


class NodeError(Exception):
    """Root of the errors of this room; `reason` is the word that a kubelet's event or status has for it."""

    reason = "NodeError"


class RuntimeUnavailable(NodeError):
    """The runtime cannot be reached, or cannot work on this machine."""

    reason = "RuntimeUnavailable"


class NotFound(NodeError):
    """There is no sandbox, container or image of that name."""

    reason = "NotFound"


class InvalidConfig(NodeError):
    """A configuration that no runtime of this kind can carry out; the message names the field."""

    reason = "CreateContainerConfigError"


class SandboxError(NodeError):
    """A sandbox could not be made."""

    reason = "FailedCreatePodSandBox"


class AddressesExhausted(SandboxError):
    """All addresses of the node's range are taken."""


class CreateContainerError(NodeError):
    """A container could not be made."""

    reason = "CreateContainerError"


class StartError(NodeError):
    """A container's first process could not be started."""

    reason = "RunContainerError"


class ExecError(NodeError):
    """A command could not be run in a container: `exit_code` 127 where it is not there, else 126."""

    reason = "ExecError"

    def __init__(self, message: str, exit_code: int = 126) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ImageError(NodeError):
    """Root of the errors about images."""

    reason = "ErrImagePull"


class InvalidImageName(ImageError):
    """An image name that cannot be parsed."""

    reason = "InvalidImageName"


class ImageNeverPull(ImageError):
    """The image is not here, and the policy forbids to pull it."""

    reason = "ErrImageNeverPull"


class ImagePullError(ImageError):
    """The image could not be pulled and unpacked."""

    reason = "ErrImagePull"


class RegistryUnavailable(ImagePullError):
    """The registry does not answer."""

    reason = "RegistryUnavailable"


class ImageInspectError(ImageError):
    """The image is here but cannot be read."""

    reason = "ImageInspectError"
