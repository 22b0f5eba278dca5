"""Runtimes for tests: unique names on the machine, everything taken away at the end, and a look for what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.node.config import ContainerConfig, ContainerMetadata, SandboxConfig, SandboxMetadata
from pilothouse.node.process.cgroups import detect
from pilothouse.node.process.machine import capabilities_of_this_machine
from pilothouse.node.process.network import remove_bridge
from pilothouse.node.process.options import Options
from pilothouse.node.process.runtime import ProcessRuntime
from pilothouse.node.process.zygote import MODULE
from pilothouse.node.runtime import ContainerStatus

__all__ = [
    "NEEDS_ROOT",
    "Place",
    "container",
    "eventually",
    "leftovers",
    "logged_lines",
    "place",
    "sandbox",
    "until_exited",
    "user_python",
]

_machine = capabilities_of_this_machine()
NEEDS_ROOT = pytest.mark.skipif(
    _machine.mode != "root", reason=f"wants root with namespaces and a network of its own; here: {_machine.mode}"
)
_PATIENCE = float(os.environ.get("NODE_TEST_PATIENCE", "30"))


class Place:
    """A directory, a bridge and a group of one test, and the runtimes in it."""

    def __init__(self, directory: Path, name: str, number: int) -> None:
        self.directory = directory
        self.name = name
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.options = Options(
            root=str(directory / "node"),
            bridge=name,
            pod_cidr=f"10.{200 + number % 50}.{number // 50 % 250}.0/26" if os.geteuid() == 0 else "",
            masquerade=False,
            cgroup_prefix=name,
            local_images=(str(directory),),
        )
        self._runtimes: list[ProcessRuntime] = []

    async def runtime(self, **changes: Any) -> ProcessRuntime:
        """Return a runtime that is started; it is closed at the end."""
        fields = {name: getattr(self.options, name) for name in Options.__struct_fields__} | changes
        runtime = ProcessRuntime(Options(**fields))
        await runtime.start()
        self._runtimes.append(runtime)
        return runtime

    async def end(self) -> None:
        """Remove all pods and close all runtimes; then nothing may be left."""
        last = self._runtimes[-1] if self._runtimes and not self._runtimes[-1].closed else await self.runtime()
        for found in await last.list_sandboxes():
            await last.remove_sandbox(found.id)
        await self.close()
        await eventually(lambda: not leftovers(self), lambda: str(leftovers(self)))

    async def close(self) -> None:
        """Close all runtimes."""
        for runtime in self._runtimes:
            await runtime.close()

    def clean(self) -> None:
        """Take away what tests share: the bridge, groups and the directory."""
        kill_strays(self.options.root)
        if os.geteuid() == 0:
            with contextlib.suppress(OSError):
                remove_bridge(self.name)
            detect().remove(self.name)
        shutil.rmtree(self.directory, ignore_errors=True)


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """Make a place for a test, and take everything away afterwards whatever happens."""
    with _directory() as (directory, name, number):
        made = Place(directory, name, number)
        try:
            yield made
            await made.end()
        finally:
            await made.close()
            made.clean()


@contextmanager
def _directory() -> Iterator[tuple[Path, str, int]]:
    path = Path(tempfile.mkdtemp(prefix="pht"))
    path.chmod(0o711)
    number = os.getpid() * 7 + time.monotonic_ns() // 1000 % 9973
    try:
        yield path, f"pht{number % 10**10}", number
    finally:
        shutil.rmtree(path, ignore_errors=True)


def kill_strays(root: str) -> None:
    """End keepers and zygotes of a runtime's directory."""
    for pid in _ours(root):
        with contextlib.suppress(OSError):
            os.kill(pid, 9)


def leftovers(made: Place) -> list[str]:
    """Return everything of a place that is still on the machine, in words."""
    root = made.options.root
    found = [f"process {pid}: {text}" for pid, text in _ours(root).items()]
    found += [f"pod directory {name}" for name in os.listdir(f"{root}/pods")]
    found += [f"address {name}" for name in os.listdir(f"{root}/addresses")]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        found += [f"mount {line.split()[4]}" for line in file if str(made.directory) in line]
    if os.geteuid() == 0:
        for path in detect(made.name).directories("/").values():
            for parent, names, _ in os.walk(path.rstrip("/")):
                allowed = {"pilothouse-keepers", "kubepods", "burstable", "besteffort", "pilothouse"}
                found += [f"group {parent}/{name}" for name in names if name not in allowed]
        members = Path(f"/sys/class/net/{made.name}/brif")
        found += [f"link {name}" for name in (os.listdir(members) if members.exists() else [])]
    return found


def _ours(root: str) -> dict[int, str]:
    """Return keepers, zygotes and all that have files of the place as their root or mark."""
    found: dict[int, str] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if (MODULE.encode() in words and os.fsencode(root) in words) or any(
                root.encode() in word for word in words[4:]
            ):
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                    if stat.read().rpartition(")")[2].split()[0] != "Z":
                        found[int(name)] = b" ".join(words).decode(errors="replace")
    return found


def sandbox(made: Place, name: str = "pod", **fields: Any) -> SandboxConfig:
    """Return a pod's configuration with a log directory and a group below the place's."""
    parent = f"/kubepods/pod{name}" if os.geteuid() == 0 else ""
    defaults: dict[str, Any] = {"hostname": name, "log_directory": str(made.logs), "cgroup_parent": parent}
    return SandboxConfig(metadata=SandboxMetadata(name=name, uid=name), **(defaults | fields))


def container(*command: str, name: str = "main", **fields: Any) -> ContainerConfig:
    """Return a container that runs a shell line, or a command of several words."""
    words = ("/bin/sh", "-c", command[0]) if len(command) == 1 else command
    defaults: dict[str, Any] = {"image": "host", "command": words, "log_path": f"{name}.log"}
    return ContainerConfig(metadata=ContainerMetadata(name=name), **(defaults | fields))


async def until_exited(runtime: ProcessRuntime, container_id: str) -> ContainerStatus:
    """Wait until a container has ended and return its status."""
    deadline = time.monotonic() + _PATIENCE
    while (found := await runtime.container_status(container_id)).state != "Exited":
        assert time.monotonic() < deadline, f"still {found.state} after {_PATIENCE:g} s"
        await asyncio.sleep(0.01)
    return found


async def eventually(true: Callable[[], bool], shown: Callable[[], str] = lambda: "") -> None:
    """Wait until something is so; fail after a long time."""
    deadline = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < deadline, shown()
        await asyncio.sleep(0.02)


def logged_lines(made: Place, name: str = "main") -> list[str]:
    """Return the text of a container's log, without times, streams and tags."""
    path = made.logs / f"{name}.log"
    return [line.split(" ", 3)[3] for line in path.read_text().splitlines()] if path.exists() else []


def user_python(directory: Path) -> list[str] | None:
    """Return a command that runs Python as an ordinary user with all of this environment; None where there is none."""
    if os.geteuid() != 0:
        return [sys.executable]
    if shutil.which("setpriv") is None:
        return None
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    version = f"python3.{sys.version_info.minor}"
    home = directory / "venv"
    site = home / "lib" / version / "site-packages"
    site.mkdir(parents=True)
    (home / "bin").mkdir()
    base = f"/usr/bin/{version}"
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (site / "all.pth").write_text(
        "\n".join(path for path in sys.path if "site-packages" in path or path.endswith("/src"))
    )
    (home / "bin" / "python").symlink_to(base)
    for command in ([*drop, sys.executable], [*drop, str(home / "bin" / "python")]):
        check = [*command, "-c", "import pilothouse, msgspec, sys; open(sys.executable, 'rb').close()"]
        with contextlib.suppress(OSError):
            if subprocess.run(check, check=False, capture_output=True, timeout=60, cwd="/").returncode == 0:
                return command
    return None
