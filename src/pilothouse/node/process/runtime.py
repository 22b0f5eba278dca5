"""The process runtime: `Runtime` over keepers, one per pod."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence

import msgspec

from pilothouse import __version__
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.logs import get_logger
from pilothouse.node.config import ContainerConfig, Mount, SandboxConfig
from pilothouse.node.errors import CreateContainerError, ExecError, NotFound, StartError
from pilothouse.node.images.store import ImageStore
from pilothouse.node.runtime import (
    ContainerStats,
    ContainerStatus,
    Event,
    ExecResult,
    Runtime,
    RuntimeStatus,
    SandboxStatus,
    Session,
)

from . import network
from .cgroups import detect
from .directory import lock, store_options
from .ending import end_container
from .events import Events
from .ipam import AddressPool
from .links import KeeperLink, Refused
from .machine import Machine, capabilities_of_this_machine
from .options import Options
from .pods import Container, Pod, StoredContainer, remove_tree
from .sandboxes import Sandboxes
from .sessions import Connection
from .spec import ContainerRecord, ExecSpec, write_file
from .specs import Around, container_spec, stop_signal
from .streaming import open_attach, open_exec, open_port
from .unmounted import machine_paths
from .usage import directory_usage, process_usage

__all__ = ["ProcessRuntime"]

_TRUNCATED = 1 << 20
_log = get_logger(__name__)


class ProcessRuntime(Runtime):
    """Pods as process trees of this machine. Use: make it, `await start()`, and `await close()` at the end."""

    images: ImageStore

    def __init__(self, options: Options, *, ids: Ids | None = None) -> None:
        self._options = options
        self._ids = ids if ids is not None else SystemIds()
        self._events = Events()
        self._way_out = ""
        self._machine: Machine | None = None
        self._sandboxes: Sandboxes | None = None
        self.closed = False
        self._lock = -1

    @property
    def machine(self) -> Machine:
        """What this machine allows; known after `start`."""
        if self._machine is None:
            raise NotFound("the runtime is not started")
        return self._machine

    async def start(self) -> None:
        options = self._options
        os.makedirs(options.root, mode=0o711, exist_ok=True)
        self._lock = lock(options.root)
        store_options(options)
        groups = detect(options.cgroup_prefix)
        machine = await asyncio.to_thread(capabilities_of_this_machine, groups)
        if options.mode is not None:
            machine = msgspec.structs.replace(machine, mode=options.mode)
        self._machine = machine
        if machine.mode != "root" and groups.version and not _may_make_groups(groups.mounts):
            groups.mounts.clear()
        cidr = options.pod_cidr or ("10.244.0.0/24" if machine.mode == "root" else "127.64.0.0/16")
        pool = AddressPool(f"{options.root}/addresses", cidr)
        self.images = ImageStore(options, owners=machine.mode == "root", overlay=machine.overlay)
        self._sandboxes = Sandboxes(options, machine.mode, groups, pool, self._ids, self._events)
        if machine.mode == "root":
            network.ensure_bridge(options.bridge, pool, options.mtu)
            self._way_out = "switched off"
            if options.masquerade:
                self._way_out = await network.ensure_way_out(options.bridge, pool, options.cluster_cidr)
        await self.images.start()
        await self._sandboxes.adopt()
        await self._sandboxes.zygote.start()

    async def close(self) -> None:
        self.closed = True
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._sandboxes is not None:
            await self._sandboxes.close()
        self._events.close()

    async def dismantle(self) -> None:
        """Remove all pods and what the machine has for them beside the directory, bridge and groups; and close."""
        for pod in list(self._all.pods):
            await self._all.remove(pod)
        await self.close()
        if self.machine.mode == "root":
            await network.remove_way_out(self._options.bridge)
            network.remove_bridge(self._options.bridge)
        await asyncio.to_thread(self._all.remove_empty_groups)

    async def status(self) -> RuntimeStatus:
        missing = list(self.machine.missing)
        if self._way_out not in {"", "switched off", "no nft program"}:
            missing.append(f"pods do not reach other networks: {self._way_out}")
        if lacking := sorted(self._all.groups.unavailable):
            missing.append(f"control groups of {', '.join(lacking)} do not reach pods: these limits do not hold")
        return RuntimeStatus(
            name="pilothouse-process",
            version=__version__,
            runtime_ready=self._sandboxes is not None,
            network_ready=True,
            missing=tuple(missing),
        )

    async def run_sandbox(self, config: SandboxConfig) -> str:
        return await self._all.run(config)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._all.stop(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._all.remove(sandbox_id)

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        return self._all.pod(sandbox_id).status()

    async def list_sandboxes(self) -> Sequence[SandboxStatus]:
        return [pod.status() for pod in self._all.pods.values()]

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        pod = self._all.pod(sandbox_id)
        bundle = await self.images.bundle(config.image)
        container_id = self._ids.uuid().replace("-", "")
        directory = f"{pod.directory}/containers/{container_id}"
        stored = StoredContainer(
            id=container_id,
            config=config,
            created_at=time.time_ns(),
            image_id=bundle.id,
            image_ref=bundle.id,
            stop_signal=stop_signal(config, bundle.config.stop_signal),
            cgroup=f"{pod.stored.cgroup}/{container_id}" if pod.stored.cgroup else "",
        )
        around = self._around(pod, stored, directory)
        spec = container_spec(container_id, config, pod.stored.config, bundle, around)
        try:
            os.makedirs(directory, mode=0o700)
            if spec.root.type == "overlay":
                bundle = await self.images.prepare(bundle, directory)
                if bundle.directory:
                    root = msgspec.structs.replace(spec.root, type="directory", path=bundle.directory)
                    spec = msgspec.structs.replace(spec, root=root)
            _make_sources(config)
            if stored.cgroup:
                self._make_group(stored, privileged=config.security.privileged)
            write_file(f"{directory}/spec.json", spec)
            write_file(f"{directory}/config.json", stored)
        except OSError as error:
            await asyncio.to_thread(self._remove_files, stored, directory)
            raise CreateContainerError(
                f'failed to create container "{config.metadata.name}": {error.filename}: {error.strerror}'
            ) from error
        pod.containers[container_id] = Container(stored, sandbox_id, directory)
        self._events.tell("Created", sandbox_id, container_id)
        return container_id

    async def start_container(self, container_id: str) -> None:
        pod, container = self._all.container(container_id)
        name = container.stored.config.metadata.name
        if pod.link is None:
            raise StartError(f'failed to start container "{name}": the sandbox is not ready')
        try:
            await pod.link.ask("start", container=container_id)
        except Refused as error:
            # As the record has it, whether or not it came before the answer.
            if container.record.state == "Created":
                container.take(
                    ContainerRecord(
                        id=container_id,
                        state="Exited",
                        finished_at=time.time_ns(),
                        exit_code=128,
                        reason="StartError",
                        message=str(error),
                    )
                )
            raise StartError(
                f'failed to start container "{name}": unable to start container process: {error}'
            ) from error

    async def stop_container(self, container_id: str, grace: float) -> None:
        try:
            pod, container = self._all.container(container_id)
        except NotFound:
            return
        await end_container(pod, container, grace)

    async def remove_container(self, container_id: str) -> None:
        try:
            pod, container = self._all.container(container_id)
        except NotFound:
            return
        await self.stop_container(container_id, 0)
        if pod.link is not None:
            with contextlib.suppress(Refused, NotFound):
                await pod.link.ask("forget", container=container_id)
        pod.containers.pop(container_id, None)
        await asyncio.to_thread(self._remove_files, container.stored, container.directory)
        self._events.tell("Deleted", pod.stored.id, container_id)

    async def container_status(self, container_id: str) -> ContainerStatus:
        pod, container = self._all.container(container_id)
        return container.status(pod.log_path(container))

    async def list_containers(self, sandbox_id: str | None = None) -> Sequence[ContainerStatus]:
        pods = [self._all.pod(sandbox_id)] if sandbox_id is not None else self._all.pods.values()
        return [container.status(pod.log_path(container)) for pod in pods for container in pod.containers.values()]

    async def container_stats(self, container_id: str) -> ContainerStats:
        _, container = self._all.container(container_id)
        used = self._all.groups.usage(container.stored.cgroup) if container.stored.cgroup else None
        files = await asyncio.to_thread(directory_usage, f"{container.directory}/upper")
        if used is None:
            cpu, memory, count = (
                process_usage(container.record.pid) if container.record.state == "Running" else (0, 0, 0)
            )
            return ContainerStats(
                id=container_id,
                timestamp=time.time_ns(),
                cpu_usage_ns=cpu,
                memory_usage_bytes=memory,
                memory_working_set_bytes=memory,
                memory_rss_bytes=memory,
                pids=count,
                filesystem=files,
            )
        return ContainerStats(
            id=container_id,
            timestamp=time.time_ns(),
            cpu_usage_ns=used.cpu_ns,
            memory_usage_bytes=used.memory,
            memory_working_set_bytes=used.working_set,
            memory_rss_bytes=used.rss,
            oom_kills=used.oom_kills,
            pids=used.pids,
            filesystem=files,
        )

    async def reopen_log(self, container_id: str) -> None:
        pod, _ = self._all.container(container_id)
        if pod.link is not None:
            await pod.link.ask("reopen", container=container_id)

    async def exec_sync(
        self, container_id: str, command: Sequence[str], *, seconds: float = 0, max_output: int = 16 << 20
    ) -> ExecResult:
        session = await self.exec(container_id, command)
        try:
            async with asyncio.timeout(seconds or None):
                out, err, code = await asyncio.gather(
                    _head(session.stdout, max_output), _head(session.stderr, max_output), session.wait()
                )
        except TimeoutError:
            raise TimeoutError(f'command "{" ".join(command)[:200]}" timed out after {seconds:g} s') from None
        finally:
            await session.close()
        return ExecResult(exit_code=code, stdout=out, stderr=err)

    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> Session:
        link, container = self._running(container_id)
        if not command:
            raise ExecError("exec: no command is given")
        unmounted = container.stored.config.mounts if self.machine.mode == "plain" else ()
        argv = machine_paths(command, unmounted)
        return await open_exec(link, container_id, ExecSpec(argv=argv, tty=tty, stdin=stdin))

    async def attach(self, container_id: str, *, stdin: bool = False) -> Session:
        link, container = self._running(container_id)
        return await open_attach(link, container, stdin=stdin)

    async def port_forward(self, sandbox_id: str, port: int) -> Connection:
        pod = self._all.pod(sandbox_id)
        if pod.link is None:
            raise ConnectionError(f'sandbox "{sandbox_id}" is not ready')
        own = self.machine.mode == "root" or not pod.stored.address
        return await open_port(pod.link, ["127.0.0.1"] if own else [pod.stored.address, "127.0.0.1"], port)

    def events(self) -> AsyncIterator[Event]:
        return self._events.listen()

    @property
    def _all(self) -> Sandboxes:
        if self._sandboxes is None:
            raise NotFound("the runtime is not started")
        return self._sandboxes

    def _running(self, container_id: str) -> tuple[KeeperLink, Container]:
        pod, container = self._all.container(container_id)
        if container.record.state != "Running" or pod.link is None:
            raise ExecError(f'container "{container.stored.config.metadata.name}" is not running')
        return pod.link, container

    def _around(self, pod: Pod, stored: StoredContainer, directory: str) -> Around:
        groups = self._all.groups
        views: dict[str, str] = groups.directories(stored.cgroup) if stored.cgroup else {}
        files = tuple(
            Mount(host_path=f"{pod.directory}/{name}", container_path=f"/etc/{name}")
            for name in ("hostname", "hosts", "resolv.conf")
        )
        return Around(
            mode=self.machine.mode,
            directory=directory,
            hidden=(*self._options.hidden, self._options.root),
            files=files,
            cgroup_files=groups.procs_files(stored.cgroup) if stored.cgroup else (),
            cgroup_views=tuple(views.items()),
            oom_file=groups.oom_file(stored.cgroup) if stored.cgroup else "",
            guarded_devices=groups.guards_devices and bool(stored.cgroup),
        )

    def _make_group(self, stored: StoredContainer, *, privileged: bool) -> None:
        groups = self._all.groups
        limits = stored.config.resources
        if self._options.pids_limit and not limits.pids_limit:
            limits = msgspec.structs.replace(limits, pids_limit=self._options.pids_limit)
        groups.create(stored.cgroup, limits, all_devices=privileged)
        for device in stored.config.devices:
            found = os.stat(device.host_path)
            kind = "b" if found.st_mode & 0o170000 == 0o060000 else "c"
            rule = f"{kind} {os.major(found.st_rdev)}:{os.minor(found.st_rdev)} {device.permissions}"
            groups.allow_device(stored.cgroup, rule)

    def _remove_files(self, stored: StoredContainer, directory: str) -> None:
        if stored.cgroup and not self._all.groups.remove(stored.cgroup):
            _log.warning("a control group cannot be removed", group=stored.cgroup)
        with contextlib.suppress(FileNotFoundError):
            remove_tree(directory)


def _make_sources(config: ContainerConfig) -> None:
    """Make directories that are to be shown and are not there, as every runtime does."""
    for mount in config.mounts:
        if mount.type == "bind" and not os.path.exists(mount.host_path):
            os.makedirs(mount.host_path, exist_ok=True)


async def _head(reader: asyncio.StreamReader, limit: int) -> bytes:
    """Return the first bytes up to the limit, and read the rest away."""
    found = bytearray()
    while chunk := await reader.read(_TRUNCATED):
        found += chunk[: limit - len(found)]
    return bytes(found)


def _may_make_groups(mounts: dict[str, str]) -> bool:
    return all(os.access(mount, os.W_OK) for mount in mounts.values())
