"""Servers to measure: real etcd (Debian's, and a newer one built where Go is), our own service, and etcd's load tool.

What is built goes to `build/bench-cache` and is built once. What cannot be had is left out with the reason on stderr.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from _kit import CACHE, note
from pilothouse import __version__

__all__ = [
    "Etcd",
    "LoadResult",
    "Pilothouse",
    "Server",
    "etcds",
    "follower",
    "free_port",
    "go_step",
    "load_tool",
    "put_load",
    "range_load",
    "running",
    "servers",
    "wait_until",
]

ETCD_VERSION = "v3.6.16"
TOOL_VERSION = "v3.6.8"
RUNTIME_VERSION = "v0.25.2"
"""Of controller-runtime."""

SERVE = (sys.executable, "-m", "pilothouse", "store", "serve")

_BUILD_SECONDS = 2400
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_MAIN = """package main

import (
\t"os"

\t"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""


class Server(NamedTuple):
    """A running server."""

    name: str
    version: str
    host: str
    port: int
    pid: int

    @property
    def target(self) -> str:
        """The address for clients."""
        return f"{self.host}:{self.port}"


class Etcd(NamedTuple):
    """An etcd that can be started."""

    name: str
    version: str
    program: str

    @contextlib.contextmanager
    def start(self, directory: Path) -> Iterator[Server]:
        """Run a member that is a cluster of its own until the block ends; its data stay in `directory`."""
        port, peer_port = free_port(), free_port()
        client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [
            self.program,
            f"--data-dir={directory}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--logger=zap",
            "--log-level=error",
            f"--quota-backend-bytes={8 << 30}",
        ]
        with running(command, directory.parent / f"{directory.name}.log") as process:
            wait_until(process, lambda: _healthy(f"{client}/health"))
            yield Server(self.name, self.version, "127.0.0.1", port, process.pid)


class Pilothouse(NamedTuple):
    """Our own store behind its gRPC service."""

    name: str
    version: str

    @contextlib.contextmanager
    def start(self, directory: Path) -> Iterator[Server]:
        """Run `pilothouse store serve` until the block ends; its data stay in `directory`."""
        port = free_port()
        command = [*SERVE, "--data-dir", str(directory), "--listen", f"127.0.0.1:{port}"]
        with running(command, directory.parent / f"{directory.name}.log") as process:
            wait_until(process, lambda: _listens(port))
            yield Server(self.name, self.version, "127.0.0.1", port, process.pid)


def servers() -> list[Pilothouse | Etcd]:
    """Return our server and, after it, the etcds that can be had here."""
    return [Pilothouse("pilothouse", __version__), *etcds()]


def free_port() -> int:
    """Return a port of the loopback interface that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def etcds() -> list[Etcd]:
    """Return the etcds that can be had here: Debian's, and the pinned newer one where Go is installed."""
    found: list[Etcd] = []
    debian = shutil.which("etcd")
    if debian is None:
        note("left out: Debian's etcd is not installed (package etcd-server)")
    else:
        found.append(Etcd("etcd (Debian)", _version(debian), debian))
    built = _go_program("etcd", ETCD_VERSION, "go.etcd.io/etcd/server/v3/etcdmain", _MAIN)
    if built is not None:
        found.append(Etcd("etcd (Go module)", _version(str(built)), str(built)))
    return found


@functools.cache
def load_tool() -> Path | None:
    """Return etcd's own load program, built where Go is installed."""
    return _go_program("benchmark", TOOL_VERSION, "go.etcd.io/etcd/v3/tools/benchmark", None)


@functools.cache
def follower(*, build: bool) -> Path | None:
    """Return the program that follows objects by controller-runtime, built where Go is installed; None, said, if not.

    build: build it where that has not been done yet, which takes minutes.
    """
    source = Path(__file__).with_name("_follower.go").read_text(encoding="ascii")
    version = f"{RUNTIME_VERSION}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
    if not build and not (CACHE / f"follower-{version}").exists():
        note("left out: controller-runtime: it is not built yet, which a run without --quick does")
        return None
    return _go_program("follower", version, "sigs.k8s.io/controller-runtime", source, RUNTIME_VERSION)


def _version(program: str) -> str:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"etcd Version: (\S+)", shown)
    return found[1] if found else "unknown"


def _go_program(name: str, version: str, package: str, source: str | None, wanted: str = "") -> Path | None:
    """Build a Go program in a module of its own: `source`, which imports `package`, or `package` itself.

    wanted: the version of the package, where it is not the program's.
    """
    program = CACHE / f"{name}-{version}" / name
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        note(f"left out: {name} {version}: Go is not installed, and it is built from {package}")
        return None
    note(f"building {name} {version} into build/bench-cache (once, some minutes)")
    shutil.rmtree(program.parent, ignore_errors=True)
    program.parent.mkdir(parents=True)
    if source is not None:
        (program.parent / "main.go").write_text(source, encoding="ascii")
    steps = [
        [go, "mod", "init", "peer"],
        [go, "get", f"{package}@{wanted or version}"],
        [go, "build", "-o", name, "." if source is not None else package],
    ]
    try:
        for step in steps:
            go_step(step, program.parent)
    except RuntimeError as error:
        note(f"left out: {name} {version}: {error}")
        return None
    return program


def go_step(command: list[str], directory: Path) -> str:
    """Run one command of Go; return what it printed. Raises RuntimeError where it fails."""
    environment = os.environ | {"GOFLAGS": "-buildvcs=false -mod=mod"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")
    return done.stdout


@contextlib.contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends; what it says goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    except ServerNotReadyError as error:
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-1000:]
        raise ServerNotReadyError(f"{command[0]}: {error}: {end}") from None
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ServerNotReadyError(RuntimeError):
    """A server ended, or did not answer in time."""


def wait_until(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    """Wait until a started program is ready. Raises ServerNotReadyError where it ends or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None:
            raise ServerNotReadyError(f"ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise ServerNotReadyError(f"no answer within {_START_SECONDS:g} s")
        time.sleep(0.02)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return b"true" in answer.read()
    except (urllib.error.URLError, OSError):
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class LoadResult(NamedTuple):
    """What etcd's load program printed: requests a second and latencies in µs."""

    rate: float
    p50: float
    p99: float


def put_load(server: Server, *, clients: int, connections: int, total: int, value_size: int = 256) -> LoadResult:
    """Put `total` new keys with etcd's load program."""
    arguments = ["put", "--key-size=32", f"--key-space-size={total}", "--sequential-keys", f"--val-size={value_size}"]
    return _load(server, clients, connections, [*arguments, f"--total={total}"])


def range_load(server: Server, *keys: str, clients: int, connections: int, total: int) -> LoadResult:
    """Read a key, or the range between two, `total` times with etcd's load program, linearizable."""
    return _load(server, clients, connections, ["range", *keys, f"--total={total}"])


def _load(server: Server, clients: int, connections: int, command: list[str]) -> LoadResult:
    tool = load_tool()
    if tool is None:
        raise FileNotFoundError("etcd's load program is not there; ask load_tool() first")
    shared = [str(tool), f"--endpoints={server.target}", f"--clients={clients}", f"--conns={connections}", "--precise"]
    done = subprocess.run([*shared, *command], capture_output=True, text=True, timeout=300, check=True)
    if "Error distribution" in done.stdout:
        raise RuntimeError(f"{server.name}: requests failed: {done.stdout[-500:]}")
    return LoadResult(
        _number(r"Requests/sec:\s*([0-9.e+]+)", done.stdout),
        _number(r"50% in ([0-9.e+-]+) s", done.stdout) * 1e6,
        _number(r"99% in ([0-9.e+-]+) s", done.stdout) * 1e6,
    )


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"etcd's load program printed nothing like {pattern!r}: {text[-500:]}")
    return float(found[1])
