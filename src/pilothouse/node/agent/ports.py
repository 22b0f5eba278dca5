"""What the agent takes from other parts of the node: volumes, environment, names, credentials; with plain defaults."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from pilothouse.kinds.quantity import parse
from pilothouse.kinds.structs.core_containers import VolumeMount
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.structs.core_volumes import Volume
from pilothouse.node.config import DNSConfig, Mount, RegistryAuth

from .facts import AnyContainer, role_of

__all__ = [
    "ConfigError",
    "Credentials",
    "Environment",
    "HostNames",
    "LiteralEnvironment",
    "MountError",
    "Mounts",
    "Names",
    "NoCredentials",
    "NoMounts",
    "Ports",
    "PullCredentials",
    "SimpleMounts",
    "expand",
]

_NO_EMPTY_DIR = Volume().empty_dir
"""What stands for no emptyDir: an empty one is a volume."""
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z0-9_.-]+)\)")


class MountError(Exception):
    """A pod's volumes cannot be mounted yet; `reason` is of the event that says so, the message its text."""

    def __init__(self, message: str, reason: str = "FailedMount") -> None:
        super().__init__(message)
        self.reason = reason


class ConfigError(Exception):
    """A container cannot be described yet, as where a config map is missing: CreateContainerConfigError."""


class Mounts(Protocol):
    """A pod's volumes."""

    async def prepare(self, pod: Pod) -> Mapping[str, tuple[Mount, ...]]:
        """Make all volumes be there and return what each container mounts, by its name; may be called again.

        Raises `MountError`: the agent says so in an event and asks again, with growing pauses.
        """

    async def release(self, uid: str) -> None:
        """Take away what a pod that has ended had mounted; what is gone is fine."""

    async def prune(self, alive: Collection[str]) -> Sequence[str]:
        """Take away what pods left that are no more, as after a crash; return their UIDs."""

    def seen(self, pod: Pod) -> None:
        """Take note of a pod as it is now: what shows its labels follows, also of pods that an earlier agent began."""


class Environment(Protocol):
    """The variables of containers."""

    async def variables(
        self, pod: Pod, container: AnyContainer, *, pod_ip: str, host_ip: str
    ) -> Sequence[tuple[str, str]]:
        """Return a container's variables as they are now, in order. Raises `ConfigError`; the agent asks again."""


class Names(Protocol):
    """How pods resolve names."""

    def resolver(self, pod: Pod) -> DNSConfig:
        """Return what a pod's resolv.conf says."""


class PullCredentials(NamedTuple):
    """Who may pull an image: what to try, one after the other, and secrets that the pod names and nobody has."""

    auths: tuple[RegistryAuth, ...] = ()
    missing: tuple[str, ...] = ()


class Credentials(Protocol):
    """Who may pull."""

    async def of(self, pod: Pod, image: str) -> PullCredentials:
        """Return the credentials for an image that the pod's secrets have. Raises `ImageError`: the pull has failed."""


class SimpleMounts:
    """emptyDir and hostPath; everything else is refused by name. `root` keeps the directories."""

    def __init__(self, root: str) -> None:
        self._root = root

    async def prepare(self, pod: Pod) -> Mapping[str, tuple[Mount, ...]]:
        sources = {volume.name: self._source(pod, volume) for volume in pod.spec.volumes}
        return {
            name: tuple(_mount(sources[each.name], each) for each in container.volume_mounts if each.name in sources)
            for name, (_, container) in role_of(pod).items()
        }

    async def release(self, uid: str) -> None:
        shutil.rmtree(f"{self._root}/{uid}/volumes", ignore_errors=True)

    async def prune(self, alive: Collection[str]) -> Sequence[str]:
        try:
            gone = [uid for uid in os.listdir(self._root) if uid not in alive]
        except FileNotFoundError:
            return []
        for uid in gone:
            await self.release(uid)
        return gone

    def seen(self, pod: Pod) -> None:
        del pod

    def _source(self, pod: Pod, volume: Volume) -> Mount:
        if volume.host_path.path:
            _check_host_path(volume.name, volume.host_path.path, volume.host_path.type or "")
            return Mount(container_path="", host_path=volume.host_path.path)
        if volume.empty_dir is not _NO_EMPTY_DIR:
            if volume.empty_dir.medium == "Memory":
                limit = volume.empty_dir.size_limit
                size = parse(str(limit)).value() if limit else 0
                return Mount(container_path="", type="tmpfs", name=volume.name, size=size)
            path = f"{self._root}/{pod.metadata.uid}/volumes/kubernetes.io~empty-dir/{volume.name}"
            os.makedirs(path, exist_ok=True)
            os.chmod(path, 0o777)  # noqa: S103  as everywhere: any user of the pod may write
            return Mount(container_path="", host_path=path)
        raise MountError(
            f'MountVolume.SetUp failed for volume "{volume.name}" : this node mounts emptyDir and hostPath alone'
        )


class NoMounts:
    """Nothing is mounted and nothing refused: for runtimes that have no files."""

    async def prepare(self, pod: Pod) -> Mapping[str, tuple[Mount, ...]]:
        del pod
        return {}

    async def release(self, uid: str) -> None:
        del uid

    async def prune(self, alive: Collection[str]) -> Sequence[str]:
        del alive
        return ()

    def seen(self, pod: Pod) -> None:
        del pod


def _check_host_path(name: str, path: str, kind: str) -> None:
    failed = f'MountVolume.SetUp failed for volume "{name}" : hostPath type check failed: {path}'
    if kind == "DirectoryOrCreate":
        os.makedirs(path, mode=0o755, exist_ok=True)
    elif kind == "FileOrCreate" and not os.path.exists(path):
        with open(path, "ab"):
            pass
    checks = {
        "Directory": (stat.S_ISDIR, "directory"),
        "DirectoryOrCreate": (stat.S_ISDIR, "directory"),
        "File": (stat.S_ISREG, "file"),
        "FileOrCreate": (stat.S_ISREG, "file"),
        "Socket": (stat.S_ISSOCK, "socket file"),
        "CharDevice": (stat.S_ISCHR, "character device"),
        "BlockDevice": (stat.S_ISBLK, "block device"),
    }
    if kind not in checks:
        return
    check, word = checks[kind]
    try:
        fits = check(os.stat(path).st_mode)
    except OSError:
        fits = False
    if not fits:
        raise MountError(f"{failed} is not a {word}")


def _mount(source: Mount, wanted: VolumeMount) -> Mount:
    propagation = wanted.mount_propagation or "None"
    return Mount(
        container_path=wanted.mount_path,
        host_path=source.host_path,
        sub_path=wanted.sub_path,
        read_only=bool(wanted.read_only),
        recursive_read_only=wanted.recursive_read_only in {"Enabled", "IfPossible"},
        propagation=propagation,
        type=source.type,
        name=source.name,
        size=source.size,
    )


class LiteralEnvironment:
    """Variables with their values as written, with `$(OTHER)` expanded; those from elsewhere are refused."""

    async def variables(
        self, pod: Pod, container: AnyContainer, *, pod_ip: str, host_ip: str
    ) -> Sequence[tuple[str, str]]:
        del pod, pod_ip, host_ip
        found: dict[str, str] = {}
        if container.env_from:
            raise ConfigError(f'container "{container.name}": envFrom is not supported by this node')
        for each in container.env:
            if each.value_from is not None:
                raise ConfigError(f'container "{container.name}": env "{each.name}": valueFrom is not supported here')
            found[each.name] = expand(each.value, found)
        return list(found.items())


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by what is known; `$$` is one sign, and what is not known stays as it is."""

    def put(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return known.get(match[1], match[0])

    return _REFERENCE.sub(put, text)


class HostNames:
    """Pods resolve names as the machine does, beside what their dnsConfig says."""

    def resolver(self, pod: Pod) -> DNSConfig:
        given = pod.spec.dns_config
        if given is None:
            return DNSConfig()
        return DNSConfig(
            servers=tuple(given.nameservers),
            searches=tuple(given.searches),
            options=tuple(f"{each.name}:{each.value}" if each.value else each.name for each in given.options),
        )


class NoCredentials:
    """Images are pulled as anybody."""

    async def of(self, pod: Pod, image: str) -> PullCredentials:
        del pod, image
        return PullCredentials()


class Ports:
    """All that the agent takes from others; each has a default that does for plain pods."""

    def __init__(
        self,
        root: str,
        *,
        mounts: Mounts | None = None,
        environment: Environment | None = None,
        names: Names | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.mounts: Mounts = mounts or SimpleMounts(f"{root}/pods")
        self.environment: Environment = environment or LiteralEnvironment()
        self.names: Names = names or HostNames()
        self.credentials: Credentials = credentials or NoCredentials()
