"""The volumes and environments of a node's pods: set up before containers start, kept current, taken away after.

What is on disk is the state: the directory of a pod has all that was made for it, so that a restart needs nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from pilothouse.client import Client, ClientError
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.quantity import parse
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.structs.core_services import Service
from pilothouse.kinds.structs.core_volumes import Volume
from pilothouse.node.config import Mount

from .atomic import write_files
from .claims import claimed
from .environment import AnyContainer, Reference, environment_of, references
from .errors import ConfigError, MountError, mount_failed
from .fields import PodFacts
from .mounting import Source, mounts_of
from .objects import Objects
from .payload import PayloadError, files_of, has_fields, kind_of, tokens_of, volume_references
from .places import HostPathError, check_host_path, disk_usage, set_group
from .tokens import Tokens

__all__ = ["EmptyDirUsage", "Volumes"]

_log = get_logger(__name__)
_UID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}").fullmatch
_FOLDERS: Final = {
    "config_map": "kubernetes.io~configmap",
    "secret": "kubernetes.io~secret",
    "downward_api": "kubernetes.io~downward-api",
    "projected": "kubernetes.io~projected",
    "empty_dir": "kubernetes.io~empty-dir",
}
_AGAIN_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 0.05
"""Changes that come together are written together."""


class EmptyDirUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What an emptyDir takes of the disk, and the most it may; 0 for no limit."""

    volume: str
    used_bytes: int
    inodes_used: int
    limit_bytes: int = 0
    limit: str = ""
    """The limit as it was written."""


class Volumes:
    """The `Mounts` and `Environment` of an agent.

    root: the directory of pods, as a kubelet has it: `<root>/<uid>/volumes/<kind>/<name>`. services: the services that
    containers are told of. allocatable: what the node can give, for limits that are not set. Call `seen` when a pod's
    labels or annotations may have changed, `prune` after a restart, `close` at the end; volumes stay then.
    """

    def __init__(
        self,
        client: Client,
        root: str,
        *,
        services: Callable[[], Iterable[Service]] = tuple,
        allocatable: Callable[[], Mapping[str, str]] = dict,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._root = root
        self._services = services
        self._allocatable = allocatable
        self._clock = clock or SystemClock()
        self.objects = Objects(client, self._wake, clock=self._clock)
        self.tokens = Tokens(client, clock=self._clock)
        self._pods: dict[str, Pod] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._keepers: dict[str, tuple[asyncio.Task[None], asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- mounts

    async def prepare(self, pod: Pod) -> Mapping[str, tuple[Mount, ...]]:
        """Set up all volumes and return the mounts of each container. Raises `MountError`; may be called again."""
        uid = pod.metadata.uid
        self._pods[uid] = pod
        async with self._lock(uid):
            try:
                sources = await self._sources(pod)
                made = await self._mounts(pod, sources)
            except (ApiStatus, ClientError) as error:
                raise MountError(f"volumes of this pod cannot be read from the API server: {error}") from error
            except ConfigError as error:
                raise MountError(str(error)) from error
        if uid in self._pods and uid not in self._keepers and any(map(_is_live, pod.spec.volumes)):
            wake = asyncio.Event()
            self._keepers[uid] = asyncio.create_task(self._keep(uid, wake)), wake
        return made

    async def release(self, uid: str) -> None:
        """Take away all that was made for a pod; what is gone is fine."""
        self._pods.pop(uid, None)
        if keeper := self._keepers.pop(uid, None):
            keeper[0].cancel()
            await asyncio.gather(keeper[0], return_exceptions=True)
        self.objects.release(uid)
        self.tokens.forget(uid)
        async with self._lock(uid):
            if _UID(uid):
                await asyncio.to_thread(_remove, os.path.join(self._root, uid, "volumes"))
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.join(self._root, uid))
        self._locks.pop(uid, None)

    async def prune(self, alive: Collection[str]) -> list[str]:
        """Take away what pods left that are no more, as after a crash; return their UIDs."""
        gone: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            gone = [name for name in os.listdir(self._root) if name not in alive and _UID(name)]
        for uid in gone:
            await self.release(uid)
        return gone

    def seen(self, pod: Pod) -> None:
        """Take note of a pod as it is now; volumes that show its fields follow."""
        uid = pod.metadata.uid
        before = self._pods.get(uid)
        if before is None:
            if pod.status.phase == "Running" and os.path.isdir(os.path.join(self._root, uid, "volumes")):
                # Begun by an earlier agent: its files are kept current from now on.
                self._again(pod)
            return
        self._pods[uid] = pod
        same = before.metadata.labels == pod.metadata.labels and before.metadata.annotations == pod.metadata.annotations
        if not same:
            self._wake(uid)

    async def usage(self, pod: Pod, *, limited: bool = False) -> list[EmptyDirUsage]:
        """Return what a pod's emptyDirs take of the disk; those in memory count as their containers' memory.

        limited: only of those that have a limit.
        """
        found = []
        for volume in pod.spec.volumes:
            if kind_of(volume) == "empty_dir" and volume.empty_dir.medium != "Memory":
                limit = volume.empty_dir.size_limit
                if limited and not limit:
                    continue
                used, inodes = await asyncio.to_thread(disk_usage, self._directory(pod, volume))
                found.append(
                    EmptyDirUsage(
                        volume=volume.name,
                        used_bytes=used,
                        inodes_used=inodes,
                        limit_bytes=_size_limit(volume),
                        limit=str(limit or ""),
                    )
                )
        return found

    async def close(self) -> None:
        """Follow nothing any more; volumes stay as they are."""
        tasks = [*self._tasks, *(task for task, _ in self._keepers.values())]
        self._keepers.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.objects.close()

    # -- environment

    async def variables(
        self, pod: Pod, container: AnyContainer, *, pod_ip: str, host_ip: str
    ) -> Sequence[tuple[str, str]]:
        """Return a container's variables as they are now. Raises `ConfigError`."""
        facts = self._facts(pod, pod_ip, host_ip)
        try:
            known = await self.objects.get(pod.metadata.uid, pod.metadata.namespace, references(container))
        except (ApiStatus, ClientError, OSError) as error:
            raise ConfigError(f"failed to read what the environment refers to: {error}") from error
        made = environment_of(pod, container, known, self._services(), facts)
        for origin, names in made.skipped:
            _log.warning("names that no variable can have are left out", pod=pod.metadata.name, of=origin, names=names)
        return list(made.variables.items())

    # -- inside

    def _facts(self, pod: Pod, pod_ip: str = "", host_ip: str = "") -> PodFacts:
        pod_ips = tuple(each.ip for each in pod.status.pod_ips) or ((pod_ip,) if pod_ip else ())
        host_ips = tuple(each.ip for each in pod.status.host_ips) or ((host_ip,) if host_ip else ())
        if pod_ip and pod_ip not in pod_ips[:1]:
            pod_ips = (pod_ip,)
        return PodFacts(host_ips=host_ips, pod_ips=pod_ips, allocatable=self._allocatable())

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    def _directory(self, pod: Pod, volume: Volume) -> str:
        return os.path.join(self._root, pod.metadata.uid, "volumes", _FOLDERS[kind_of(volume)], volume.name)

    async def _sources(self, pod: Pod) -> dict[str, Source]:
        if not _UID(pod.metadata.uid):
            raise MountError(f'metadata.uid "{pod.metadata.uid}" cannot be the name of a directory')
        return {volume.name: await self._source(pod, volume) for volume in pod.spec.volumes}

    async def _source(self, pod: Pod, volume: Volume) -> Source:
        kind = kind_of(volume)
        try:
            if kind == "host_path":
                check_host_path(volume.host_path.path, volume.host_path.type or "")
                return Source(path=volume.host_path.path)
            if kind == "empty_dir":
                return self._empty_dir(pod, volume)
            if kind in _FOLDERS:
                await self._write(pod, volume)
                return Source(path=self._directory(pod, volume), read_only=True)
        except (PayloadError, HostPathError) as error:
            raise mount_failed(volume.name, error) from error
        except OSError as error:
            raise mount_failed(volume.name, f"{error.filename or 'volume'}: {error.strerror or error}") from error
        if kind in {"persistent_volume_claim", "ephemeral"}:
            found = await claimed(self._client, pod, volume)
            if found.local:
                await self._own(pod, found.path, found.name)
            return Source(path=found.path, read_only=found.read_only)
        name = {"csi": "csi", "nfs": "nfs", "image": "image"}.get(kind, kind.replace("_", "-"))
        raise mount_failed(
            volume.name,
            f"{name}: this node has no driver for it; use emptyDir, hostPath or a claim of class local-path instead",
        )

    def _empty_dir(self, pod: Pod, volume: Volume) -> Source:
        if volume.empty_dir.medium == "Memory":
            return Source(memory=True, size=_size_limit(volume))
        if volume.empty_dir.medium.startswith("HugePages"):
            raise PayloadError(f"medium {volume.empty_dir.medium}: this node has no huge pages; use Memory instead")
        path = self._directory(pod, volume)
        if not os.path.isdir(path):
            os.makedirs(path, 0o755, exist_ok=True)
            os.chmod(path, 0o777)  # noqa: S103  # any user of the pod may write, as everywhere
        group = _group(pod)
        if group is not None:
            set_group(path, group, on_mismatch_only=_only_on_mismatch(pod))
        return Source(path=path)

    async def _own(self, pod: Pod, path: str, name: str) -> None:
        group = _group(pod)
        if group is None:
            return
        try:
            await asyncio.to_thread(set_group, path, group, on_mismatch_only=_only_on_mismatch(pod))
        except OSError as error:
            raise mount_failed(name, f"applyFSGroup failed: {error}") from error

    async def _write(self, pod: Pod, volume: Volume) -> bool:
        """Write a volume's files where they are others now. Raises PayloadError, OSError, ApiStatus, ClientError."""
        meta = pod.metadata
        known = await self.objects.get(meta.uid, meta.namespace, volume_references(volume))
        wanted = tokens_of(volume)
        try:
            tokens = {each.path: await self.tokens.get(pod, each) for each in wanted}
        except (ApiStatus, ClientError) as error:
            raise PayloadError(f"failed to fetch token: {error}") from error
        files = files_of(pod, volume, known, tokens=tokens, facts=self._facts(pod))
        return await asyncio.to_thread(write_files, self._directory(pod, volume), files, self._clock.now(), _group(pod))

    async def _mounts(self, pod: Pod, sources: Mapping[str, Source]) -> dict[str, tuple[Mount, ...]]:
        spec = pod.spec
        found: dict[str, tuple[Mount, ...]] = {}
        everything: list[AnyContainer] = [*spec.init_containers, *spec.containers, *spec.ephemeral_containers]
        for container in everything:
            values: dict[str, str] = {}
            if any(each.sub_path_expr for each in container.volume_mounts):
                values = dict(await self.variables(pod, container, pod_ip="", host_ip=""))
            found[container.name] = mounts_of(container, sources, values)
        return found

    # -- keeping current

    def _again(self, pod: Pod) -> None:
        self._pods[pod.metadata.uid] = pod
        task = asyncio.create_task(self._prepared(pod))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _prepared(self, pod: Pod) -> None:
        while self._pods.get(pod.metadata.uid) is not None:
            try:
                await self.prepare(self._pods[pod.metadata.uid])
            except (MountError, OSError) as error:
                _log.info("volumes stay as they were", pod=pod.metadata.name, reason=str(error))
                await self._clock.sleep(_AGAIN_SECONDS)
            else:
                return

    def _wake(self, uid: str) -> None:
        if keeper := self._keepers.get(uid):
            keeper[1].set()

    async def _keep(self, uid: str, wake: asyncio.Event) -> None:
        """Write a pod's files anew when what they show changes, until cancelled."""
        again = False
        while True:
            await self._until(uid, wake, again=again)
            wake.clear()
            await self._clock.sleep(_SETTLE_SECONDS)
            async with self._lock(uid):
                pod = self._pods[uid]
                again = False
                for volume in filter(_is_live, pod.spec.volumes):
                    try:
                        if await self._write(pod, volume):
                            _log.debug("a volume shows something new", pod=pod.metadata.name, volume=volume.name)
                    except (PayloadError, OSError, ApiStatus, ClientError) as error:
                        # As with a kubelet, what was mounted stays as it was.
                        again = True
                        _log.info(
                            "a volume stays as it was", pod=pod.metadata.name, volume=volume.name, reason=str(error)
                        )

    async def _until(self, uid: str, wake: asyncio.Event, *, again: bool) -> None:
        due = self.tokens.due(uid)
        wait = None if due is None else max(due - self._clock.now().timestamp(), _AGAIN_SECONDS if again else 0.0)
        if again:
            wait = _AGAIN_SECONDS if wait is None else min(wait, _AGAIN_SECONDS)
        timer = None if wait is None else self._clock.call_later(wait, wake.set)
        try:
            await wake.wait()
        finally:
            if timer is not None:
                timer.cancel()


def _is_live(volume: Volume) -> bool:
    """Whether what a volume shows may change while it is mounted."""
    wanted: list[Reference] = list(volume_references(volume))
    return bool(wanted or tokens_of(volume) or has_fields(volume))


def _group(pod: Pod) -> int | None:
    return None if pod.spec.security_context is None else pod.spec.security_context.fs_group


def _only_on_mismatch(pod: Pod) -> bool:
    return pod.spec.security_context is not None and (
        pod.spec.security_context.fs_group_change_policy == "OnRootMismatch"
    )


def _size_limit(volume: Volume) -> int:
    limit = volume.empty_dir.size_limit
    return parse(str(limit)).value() if limit else 0


def _remove(path: str) -> None:
    """Remove a directory; what a program of the pod made unreadable for its own user is opened first."""

    def opened(_: object, place: str, error: object) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(place), 0o700)
            if os.path.isdir(place) and not os.path.islink(place):
                os.chmod(place, 0o700)
                shutil.rmtree(place, ignore_errors=True)
            else:
                os.unlink(place)

    shutil.rmtree(path, onerror=opened)
    if os.path.lexists(path):
        shutil.rmtree(path, ignore_errors=True)
