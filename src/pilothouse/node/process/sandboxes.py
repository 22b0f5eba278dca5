"""Sandboxes from their making to the last trace of them, over restarts of the agent and crashes of all parts.

What is to be given back is written down before it is taken: first the directory, then the address, then groups, then
the keeper; it is given back in the opposite order. So whatever a crash leaves has a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from typing import Any

import msgspec

from pilothouse.foundation.ids import Ids
from pilothouse.foundation.logs import get_logger
from pilothouse.node.config import Resources, SandboxConfig
from pilothouse.node.errors import NodeError, NotFound, SandboxError

from .cgroups import ControlGroups
from .events import Events
from .ipam import AddressPool
from .links import KeeperLink, Refused, Zygote, connect
from .options import Options
from .pods import (
    Container,
    Pod,
    StoredContainer,
    StoredSandbox,
    descends_from,
    keeper_of,
    kill_marked,
    kill_recorded,
    processes_of,
    remove_tree,
    write_pod_files,
)
from .spec import ContainerRecord, KeeperRecord, Mode, NetworkSpec, SandboxSpec, boot_id, read_file, write_file
from .specs import sysctls_of

__all__ = ["Sandboxes"]

_READY_SECONDS = 60.0
_GONE_SECONDS = 10.0
_UNKNOWN = "ContainerStatusUnknown"
_REMOVING = ".removing-"
_PARENTS = ("kubepods/burstable", "kubepods/besteffort", "kubepods", "pilothouse")
_log = get_logger(__name__)


class Sandboxes:
    """All sandboxes of a runtime's directory."""

    def __init__(
        self, options: Options, mode: Mode, groups: ControlGroups, pool: AddressPool, ids: Ids, events: Events
    ) -> None:
        self.pods: dict[str, Pod] = {}
        self.groups = groups
        self._options = options
        self._mode = mode
        self._pool = pool
        self._ids = ids
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()
        self._root = f"{options.root}/pods"
        keepers = "pilothouse-keepers"
        if groups.version:
            with contextlib.suppress(OSError):
                groups.create(keepers)
        self.zygote = Zygote(options.root, groups.procs_files(keepers) if groups.version else ())
        self._keepers_group = keepers

    def pod(self, sandbox_id: str) -> Pod:
        """Return a sandbox; raises `NotFound`."""
        try:
            return self.pods[sandbox_id]
        except KeyError:
            raise NotFound(f'sandbox "{sandbox_id}": not found') from None

    def container(self, container_id: str) -> tuple[Pod, Container]:
        """Return a container with its sandbox; raises `NotFound`."""
        for pod in self.pods.values():
            if (container := pod.containers.get(container_id)) is not None:
                return pod, container
        raise NotFound(f'container "{container_id}": not found')

    async def run(self, config: SandboxConfig) -> str:
        """Make a sandbox and return its id. Raises `SandboxError`, `AddressesExhausted`, `InvalidConfig`."""
        settings = sysctls_of(config, own_network=self._mode == "root")
        sandbox_id = self._ids.uuid().replace("-", "")
        directory = f"{self._root}/{sandbox_id}"
        own_network = self._mode == "root" and config.security.namespaces.network == "Pod"
        address = ""
        os.makedirs(f"{directory}/containers", mode=0o700)
        try:
            if config.security.namespaces.network == "Pod":
                address = self._pool.take(sandbox_id)
            parent = config.cgroup_parent or f"/pilothouse/{sandbox_id}"
            stored = StoredSandbox(
                id=sandbox_id,
                config=config,
                created_at=time.time_ns(),
                address=address,
                cgroup=parent if self.groups.version else "",
                own_cgroup_parent=not config.cgroup_parent,
            )
            write_file(f"{directory}/sandbox.json", stored)
            if stored.cgroup:
                self.groups.create(stored.cgroup, config.resources)
            write_pod_files(directory, config, address)
            write_file(f"{directory}/spec.json", self._spec(stored, directory, settings, own_network=own_network))
            pod = Pod(stored, directory)
            await self._fork(pod)
        except BaseException as error:
            await asyncio.shield(self._destroy(Pod(_nameless(sandbox_id, config, address), directory)))
            if isinstance(error, (Refused, OSError)):
                shown = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
                raise SandboxError(f'failed to create pod sandbox for "{config.metadata.name}": {shown}') from error
            raise
        self.pods[sandbox_id] = pod
        return sandbox_id

    async def stop(self, sandbox_id: str) -> None:
        """End all processes of a sandbox; its address is free from then on."""
        pod = self.pods.get(sandbox_id)
        if pod is None:
            return
        async with pod.lock:
            await self._end_keeper(pod)
            if pod.stored.address:
                self._pool.give_back(pod.stored.address)

    async def remove(self, sandbox_id: str) -> None:
        """Stop a sandbox and remove every trace of it."""
        pod = self.pods.get(sandbox_id)
        if pod is None:
            return
        await self.stop(sandbox_id)
        async with pod.lock:
            if self.pods.pop(sandbox_id, None) is None:
                return
            for container_id in pod.containers:
                self._events.tell("Deleted", sandbox_id, container_id)
            await self._destroy(pod)

    async def close(self) -> None:
        """Let go of keepers and end the zygote."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pod in self.pods.values():
            if pod.link is not None:
                pod.link.close()
        await self.zygote.close()

    async def adopt(self) -> None:
        """Take up what an earlier agent left: connect to keepers that live, end and remove what nobody owns."""
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        for name in sorted(os.listdir(self._root)):
            directory = f"{self._root}/{name}"
            if name.startswith(_REMOVING):
                await asyncio.to_thread(remove_tree, directory)
                continue
            try:
                stored = read_file(f"{directory}/sandbox.json", StoredSandbox)
            except (OSError, ValueError):
                _log.warning("a sandbox without a record is removed", sandbox=name)
                await self._destroy(Pod(_nameless(name, None, ""), directory))
                continue
            await self._take_up(stored, directory)
        self._reap_strays()
        for address, owner in self._pool.owners().items():
            if owner not in self.pods:
                self._pool.give_back(address)

    async def _take_up(self, stored: StoredSandbox, directory: str) -> None:
        pod = Pod(stored, directory)
        self.pods[stored.id] = pod
        for name in sorted(os.listdir(f"{directory}/containers")):
            with contextlib.suppress(OSError, ValueError):
                inner = f"{directory}/containers/{name}"
                container = Container(read_file(f"{inner}/config.json", StoredContainer), stored.id, inner)
                pod.containers[name] = container
                with contextlib.suppress(OSError, ValueError):
                    container.take(read_file(f"{inner}/state.json", ContainerRecord))
        pid = keeper_of(directory)
        if pid:
            try:
                await self._meet(pod, connect(directory), adopted=pid)
            except (OSError, NodeError, Refused, TimeoutError):
                _log.warning("a pod's keeper does not answer and is ended", sandbox=stored.id, pid=pid)
            else:
                return
        await self._bury(pod)

    async def _fork(self, pod: Pod) -> None:
        for attempt in range(2):
            try:
                await self._meet(pod, await self.zygote.keeper(f"{pod.directory}/spec.json"))
            except NotFound:
                # The zygote died with the request in its hands; there is no keeper yet.
                if attempt or "keeper.json" in os.listdir(pod.directory):
                    raise
            else:
                return

    async def _meet(self, pod: Pod, sock: socket.socket, *, adopted: int = 0) -> None:
        """Make the connection to a keeper the pod's, once it is ready."""
        link = KeeperLink(sock, lambda record: self._record(pod, record), lambda: self._lost(pod))
        try:
            async with asyncio.timeout(_READY_SECONDS):
                pod.pid = adopted or await link.ready
            if adopted:
                await link.ask("status")
        except BaseException as error:
            link.close()
            if isinstance(error, TimeoutError):
                raise SandboxError(f"the pod's keeper is not ready after {_READY_SECONDS:g} s") from None
            raise
        if link.closed or pod.ended.is_set():
            link.close()
            raise SandboxError("the pod's keeper went away")
        pod.link = link

    def _record(self, pod: Pod, data: dict[str, Any]) -> None:
        record = msgspec.convert(data, ContainerRecord)
        container = pod.containers.get(record.id)
        if container is not None and container.take(record):
            self._events.tell("Started" if record.state == "Running" else "Stopped", pod.stored.id, record.id)

    def _lost(self, pod: Pod) -> None:
        """Look what has become of a keeper whose connection has ended."""
        if pod.link is not None:
            task = asyncio.get_running_loop().create_task(self._meet_again(pod, pod.link))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _meet_again(self, pod: Pod, link: KeeperLink) -> None:
        """Connect to a keeper that lives, as it lets go of agents that are too slow; else take note of its end."""
        try:
            await self._meet(pod, connect(pod.directory), adopted=pod.pid)
        except (OSError, NodeError, Refused):
            if pod.link is not link:
                return
            pod.link = None
            _bury_containers(pod, "the pod's keeper is gone", self._events)
            pod.ended.set()
            self._events.tell("SandboxStopped", pod.stored.id)
        else:
            _log.info("a pod's keeper was connected to again", sandbox=pod.stored.id)

    async def _end_keeper(self, pod: Pod) -> None:
        link = pod.link
        if link is not None:
            for container in [*pod.containers.values()]:  # one may be made meanwhile
                if container.record.state == "Running":
                    with contextlib.suppress(Refused, NodeError):
                        await link.ask("kill", container=container.stored.id, signal=signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GONE_SECONDS):
                    for container in [*pod.containers.values()]:
                        if container.record.state == "Running":
                            await container.exited.wait()
            with contextlib.suppress(Refused, NodeError):
                await link.ask("end")
        await self._bury(pod)

    async def _bury(self, pod: Pod) -> None:
        """End what may be left of a pod's processes, by every sign there is of them."""
        pid = keeper_of(pod.directory)
        if pid:
            if pod.link is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await _gone(pid, pod.directory)
        if pod.link is not None:
            pod.link.close()
            pod.link = None
            self._events.tell("SandboxStopped", pod.stored.id)
        same_boot = _booted_now(pod.directory)
        for name in _names(f"{pod.directory}/containers"):
            kill_recorded(f"{pod.directory}/containers/{name}", lambda: same_boot)
        if pod.stored.cgroup:
            for container in [*pod.containers.values()]:
                if container.stored.cgroup and container.record.state != "Created":
                    await asyncio.to_thread(self.groups.kill, container.stored.cgroup)
        if not pod.stored.cgroup and self._mode != "root":
            await asyncio.to_thread(kill_marked, set(pod.containers))
        _bury_containers(pod, "the pod's keeper is gone", self._events)
        pod.ended.set()

    async def _destroy(self, pod: Pod) -> None:
        """Remove every trace of a sandbox whose processes are to end."""
        await self._bury(pod)
        stored = pod.stored
        if stored.cgroup or self.groups.version:
            await asyncio.to_thread(self._remove_groups, pod)
        if stored.address:
            self._pool.give_back(stored.address)
        grave = f"{self._root}/{_REMOVING}{stored.id}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(pod.directory, grave)
            await asyncio.to_thread(remove_tree, grave)

    def _remove_groups(self, pod: Pod) -> None:
        stored = pod.stored
        parent = stored.cgroup
        if not parent:
            with contextlib.suppress(OSError, ValueError):
                parent = read_file(f"{pod.directory}/sandbox.json", StoredSandbox).cgroup
        if not parent:
            return
        for name in _names(f"{pod.directory}/containers"):
            self.groups.remove(f"{parent}/{name}")
        shared = any(other.stored.cgroup == parent for other in self.pods.values() if other is not pod)
        if not shared and not self.groups.children(parent):
            self.groups.remove(parent)

    def _reap_strays(self) -> None:
        """End zygotes and keepers of this directory that nobody knows."""
        known = {pod.pid for pod in self.pods.values() if pod.link is not None} | {self.zygote.pid}
        for pid in processes_of(self._options.root):
            # What a keeper forks looks like it until it runs a program: the pause of a pod, a container that starts.
            if not descends_from(pid, known):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def _spec(
        self, stored: StoredSandbox, directory: str, settings: dict[str, str], *, own_network: bool
    ) -> SandboxSpec:
        config = stored.config
        namespaces = config.security.namespaces
        network = None
        if own_network:
            network = NetworkSpec(
                address=stored.address,
                prefix=self._pool.prefix,
                gateway=self._pool.gateway,
                bridge=self._options.bridge,
                veth=f"ph{stored.id[:11]}",
                mtu=self._options.mtu,
            )
        # With the machine's network goes its name, as everywhere.
        hostname = config.hostname if namespaces.network == "Pod" else ""
        return SandboxSpec(
            id=stored.id,
            directory=directory,
            mode=self._mode,
            hostname=hostname,
            network=network,
            own_ipc=namespaces.ipc == "Pod",
            share_processes=namespaces.pid == "Pod",
            sysctls=settings,
        )

    def remove_empty_groups(self) -> None:
        """Remove the groups that pods' groups were in; without a prefix others may have pods there, which stay."""
        if self.groups.prefix:
            self.groups.remove("")
            return
        for path in (*_PARENTS, self._keepers_group):
            self.groups.remove_empty(path)

    def limit_pod(self, pod: Pod, resources: Resources) -> None:
        """Change the limits of a pod's group."""
        if pod.stored.cgroup:
            self.groups.limit(pod.stored.cgroup, resources)


def _nameless(sandbox_id: str, config: SandboxConfig | None, address: str) -> StoredSandbox:
    from pilothouse.node.config import SandboxMetadata  # noqa: PLC0415  # of what has no name any more

    return StoredSandbox(
        id=sandbox_id,
        config=config or SandboxConfig(metadata=SandboxMetadata(name="", uid="")),
        created_at=0,
        address=address,
    )


def _bury_containers(pod: Pod, why: str, events: Events) -> None:
    for container in pod.containers.values():
        if container.record.state != "Running":
            continue
        record = msgspec.structs.replace(
            container.record,
            state="Exited",
            exit_code=137,
            signal=signal.SIGKILL,
            finished_at=time.time_ns(),
            reason=_UNKNOWN,
            message=f"The container could not be located when the pod was terminated: {why}",
        )
        with contextlib.suppress(OSError):
            write_file(f"{container.directory}/state.json", record)
        container.take(record)
        events.tell("Stopped", pod.stored.id, container.stored.id)


async def _gone(pid: int, directory: str) -> None:
    """Wait until a keeper is gone; kill it where it does not go."""
    deadline = time.monotonic() + _GONE_SECONDS
    while keeper_of(directory) == pid:
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            deadline += _GONE_SECONDS
        await asyncio.sleep(0.002)


def _booted_now(directory: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return read_file(f"{directory}/keeper.json", KeeperRecord).boot_id == boot_id()
    return False


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
