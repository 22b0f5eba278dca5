"""The interface of node runtimes: sandboxes, containers, streams, statistics, images and events, as in CRI v1."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

import msgspec

from pilothouse.node.config import ContainerConfig, ContainerMetadata, RegistryAuth, SandboxConfig, SandboxMetadata

__all__ = [
    "ContainerStats",
    "ContainerStatus",
    "Event",
    "ExecResult",
    "FilesystemUsage",
    "ImageService",
    "ImageStatus",
    "PodConnection",
    "Runtime",
    "RuntimeStatus",
    "SandboxStatus",
    "Session",
]

ContainerState = Literal["Created", "Running", "Exited", "Unknown"]


class SandboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox is now. Times are nanoseconds since the epoch; `ip` is empty for the machine's own network."""

    id: str
    metadata: SandboxMetadata
    state: Literal["Ready", "NotReady"]
    created_at: int
    ip: str = ""
    pid: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ContainerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a container is now.

    `reason` of an exited one is "Completed", "Error", "OOMKilled", "StartError" or "ContainerStatusUnknown"; `signal`
    is the number of the signal that ended it, its `exit_code` then 128 more.
    """

    id: str
    metadata: ContainerMetadata
    sandbox_id: str
    state: ContainerState
    created_at: int
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    pid: int = 0
    log_path: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class FilesystemUsage(msgspec.Struct, frozen=True, kw_only=True):
    """How full a file system or directory is; `capacity` and `available` 0 where only the use is known."""

    path: str
    used_bytes: int
    inodes_used: int = 0
    capacity_bytes: int = 0
    available_bytes: int = 0


class ContainerStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has used: CPU in nanoseconds since its start, memory in bytes, processes."""

    id: str
    timestamp: int
    cpu_usage_ns: int = 0
    memory_usage_bytes: int = 0
    memory_working_set_bytes: int = 0
    memory_rss_bytes: int = 0
    oom_kills: int = 0
    pids: int = 0
    filesystem: FilesystemUsage | None = None


class ImageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is here: `id` is its configuration's digest, `user` what it wants to run as."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    user: str = ""
    pinned: bool = False


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a command in a container ended; each output cut at the limit that was asked for."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class RuntimeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime is and whether it and its network work; `missing` says what this machine does not allow."""

    name: str
    version: str
    runtime_ready: bool
    network_ready: bool
    missing: tuple[str, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something changed. "Overflow": events were lost because they were not taken; list everything anew."""

    type: Literal["Created", "Started", "Stopped", "Deleted", "SandboxStopped", "Overflow"]
    sandbox_id: str = ""
    container_id: str = ""
    timestamp: int = 0


class Session(ABC):
    """A running command's streams, of `exec` and `attach`. With a terminal all output is `stdout`.

    Close it when done; the command of an `exec` that still runs then loses its streams, a container does not.
    """

    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Write to the command's standard input; raises `BrokenPipeError` when it does not read any more."""

    @abstractmethod
    async def close_stdin(self) -> None:
        """End the standard input."""

    @abstractmethod
    async def resize(self, columns: int, rows: int) -> None:
        """Set the terminal's size in characters."""

    @abstractmethod
    async def wait(self) -> int:
        """Return the exit code once the command has ended; for `attach` the container's."""

    @abstractmethod
    async def close(self) -> None:
        """Give up the streams."""


class PodConnection(Protocol):
    """A connection into a pod's network."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class ImageService(ABC):
    """The images of a node."""

    @abstractmethod
    async def status(self, image: str) -> ImageStatus | None:
        """Return an image by name, digest or id, None when it is not here. Raises `InvalidImageName`."""

    @abstractmethod
    async def pull(self, image: str, auth: RegistryAuth | None = None) -> str:
        """Make an image be here and return its id. Raises `InvalidImageName`, `ImagePullError`."""

    @abstractmethod
    async def list(self) -> Sequence[ImageStatus]:
        """Return all images that are here."""

    @abstractmethod
    async def remove(self, image: str) -> None:
        """Remove an image; one that is not here is fine."""

    @abstractmethod
    async def filesystem(self) -> FilesystemUsage:
        """Return what images take."""


class Runtime(ABC):
    """What runs pods. Every method raises errors of `pilothouse.node.errors`; `NotFound` for unknown ids.

    Stopping and removing are idempotent: what is gone is fine.
    """

    images: ImageService

    @abstractmethod
    async def start(self) -> None:
        """Take up what an earlier agent left: adopt what runs, remove what nobody owns."""

    @abstractmethod
    async def close(self) -> None:
        """Let go; sandboxes and containers run on."""

    @abstractmethod
    async def status(self) -> RuntimeStatus:
        """Return whether the runtime works."""

    @abstractmethod
    async def run_sandbox(self, config: SandboxConfig) -> str:
        """Make a sandbox and return its id. Raises `SandboxError`, `AddressesExhausted`."""

    @abstractmethod
    async def stop_sandbox(self, sandbox_id: str) -> None:
        """End all processes of a sandbox and give its network back."""

    @abstractmethod
    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop and remove a sandbox with its containers."""

    @abstractmethod
    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        """Return one sandbox."""

    @abstractmethod
    async def list_sandboxes(self) -> Sequence[SandboxStatus]:
        """Return all sandboxes."""

    @abstractmethod
    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """Make a container that does not run yet and return its id. Raises `CreateContainerError`, `InvalidConfig`."""

    @abstractmethod
    async def start_container(self, container_id: str) -> None:
        """Start a container's first process. Raises `StartError`; the container is then exited with code 128."""

    @abstractmethod
    async def stop_container(self, container_id: str, grace: float) -> None:
        """Send the stop signal, after `grace` seconds SIGKILL, and return when it has ended."""

    @abstractmethod
    async def remove_container(self, container_id: str) -> None:
        """Kill and remove a container and what it wrote; its log file stays."""

    @abstractmethod
    async def container_status(self, container_id: str) -> ContainerStatus:
        """Return one container."""

    @abstractmethod
    async def list_containers(self, sandbox_id: str | None = None) -> Sequence[ContainerStatus]:
        """Return all containers, or those of a sandbox."""

    @abstractmethod
    async def container_stats(self, container_id: str) -> ContainerStats:
        """Return what a container uses."""

    @abstractmethod
    async def reopen_log(self, container_id: str) -> None:
        """Go on with a new log file at the same path, after the old one was renamed."""

    @abstractmethod
    async def exec_sync(
        self, container_id: str, command: Sequence[str], *, seconds: float = 0, max_output: int = 16 << 20
    ) -> ExecResult:
        """Run a command in a container and return how it ended.

        `seconds` 0 means no limit; after it the command is killed and `TimeoutError` raised. Raises `ExecError`.
        """

    @abstractmethod
    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> Session:
        """Run a command in a container and return its streams. Raises `ExecError`."""

    @abstractmethod
    async def attach(self, container_id: str, *, stdin: bool = False) -> Session:
        """Return streams of a running container from now on."""

    @abstractmethod
    async def port_forward(self, sandbox_id: str, port: int) -> PodConnection:
        """Connect to a port on the pod's own loopback. Raises `ConnectionError`."""

    @abstractmethod
    def events(self) -> AsyncIterator[Event]:
        """Yield what changes from now on."""
