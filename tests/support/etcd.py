"""Real etcd processes for tests: one member or three, plain or TLS, killed and started again at will."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pilothouse.foundation import tls

__all__ = ["ETCD_MISSING", "EtcdCluster", "TlsFiles", "etcd_cluster", "make_tls", "wants_etcd"]

_START_SECONDS = 30.0
ETCD_MISSING = "etcd and etcdctl are not installed (Debian: apt-get install etcd-server etcd-client)"


def wants_etcd() -> None:
    """Skip the test, saying why, where etcd is not installed."""
    if shutil.which("etcd") is None or shutil.which("etcdctl") is None:
        pytest.skip(ETCD_MISSING)


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass(frozen=True)
class TlsFiles:
    """A CA and the certificates it issued, as files."""

    ca: Path
    server_certificate: Path
    server_key: Path
    client_certificate: Path
    client_key: Path


def make_tls(directory: Path) -> TlsFiles:
    """Issue a server certificate for loopback and a client certificate."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = tls.make_ca("test authority")
    files = TlsFiles(
        directory / "ca.crt",
        directory / "server.crt",
        directory / "server.key",
        directory / "client.crt",
        directory / "client.key",
    )
    files.ca.write_bytes(authority.certificate)
    # etcd's own gateway dials its member with the server's certificate, so that one serves both ways.
    server = tls.issue(authority, "etcd", hosts=["127.0.0.1", "localhost"], server=True, client=True)
    tls.write(server, str(files.server_certificate), str(files.server_key))
    client = tls.issue(authority, "root", client=True)
    tls.write(client, str(files.client_certificate), str(files.client_key))
    return files


@dataclass
class EtcdMember:
    """One etcd process and where it keeps its data."""

    name: str
    client_url: str
    peer_url: str
    data_dir: Path
    log: Path
    arguments: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, or start it again on its data."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process; SIGSTOP has stopped all its threads when this returns."""
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        if self.process is not None:
            # A stopped process takes SIGKILL too.
            self.process.kill()
            self.process.wait()
            self.process = None


class EtcdCluster:
    """Members that form a cluster."""

    def __init__(
        self, directory: Path, size: int = 1, *, tls_files: TlsFiles | None = None, extra: Sequence[str] = ()
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.tls = tls_files
        scheme = "https" if tls_files else "http"
        ports = free_ports(2 * size)
        names = [f"m{i}" for i in range(size)]
        peers = [f"http://127.0.0.1:{port}" for port in ports[size:]]
        initial = ",".join(f"{name}={peer}" for name, peer in zip(names, peers, strict=True))
        self.members = [
            EtcdMember(name, f"{scheme}://127.0.0.1:{port}", peer, directory / name, directory / f"{name}.log")
            for name, port, peer in zip(names, ports, peers, strict=False)
        ]
        for member in self.members:
            member.arguments = [
                "etcd",
                f"--name={member.name}",
                f"--data-dir={member.data_dir}",
                f"--listen-client-urls={member.client_url}",
                f"--advertise-client-urls={member.client_url}",
                f"--listen-peer-urls={member.peer_url}",
                f"--initial-advertise-peer-urls={member.peer_url}",
                f"--initial-cluster={initial}",
                "--logger=zap",
                "--log-level=warn",
                "--heartbeat-interval=50",
                "--election-timeout=500",
                "--bcrypt-cost=4",
                *self._tls_arguments(),
                *extra,
            ]

    def _tls_arguments(self) -> list[str]:
        files = self.tls
        if files is None:
            return []
        return [
            f"--cert-file={files.server_certificate}",
            f"--key-file={files.server_key}",
            f"--trusted-ca-file={files.ca}",
            "--client-cert-auth",
        ]

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The client URLs."""
        return tuple(member.client_url for member in self.members)

    def start(self) -> None:
        """Start all members and wait until they answer reads by consensus."""
        for member in self.members:
            member.start()
        self.wait_healthy()

    def wait_healthy(self, members: Sequence[EtcdMember] | None = None) -> None:
        """Wait until each member (all by default) serves; fail with its log's end."""
        deadline = time.monotonic() + _START_SECONDS
        for member in members or self.members:
            while self.etcdctl("endpoint", "health", members=[member], check=False).returncode != 0:
                if time.monotonic() > deadline:
                    pytest.fail(f"etcd {member.name} does not serve: {member.log.read_text()[-2000:]}")
                time.sleep(0.05)

    def etcdctl(
        self, *arguments: str, members: Sequence[EtcdMember] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run etcdctl against the members (all by default)."""
        command = ["etcdctl", "--endpoints", ",".join(member.client_url for member in members or self.members)]
        if self.tls is not None:
            files = self.tls
            command += [f"--cacert={files.ca}", f"--cert={files.client_certificate}", f"--key={files.client_key}"]
        return subprocess.run(
            [*command, *arguments],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=check,
        )

    def leader(self) -> EtcdMember:
        """Return the member that leads; fail when none does in time."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            alive = [member for member in self.members if member.process is not None]
            for member in alive:
                result = self.etcdctl("endpoint", "status", "-w", "json", members=[member], check=False)
                if result.returncode == 0 and result.stdout.strip():
                    status = json.loads(result.stdout)[0]["Status"]
                    if status["leader"] == status["header"]["member_id"]:
                        return member
            time.sleep(0.05)
        pytest.fail("no etcd member leads")

    def stop(self) -> None:
        """End all members."""
        for member in self.members:
            member.kill()


@contextlib.asynccontextmanager
async def etcd_cluster(
    directory: Path, size: int = 1, *, tls_files: TlsFiles | None = None, extra: Sequence[str] = ()
) -> AsyncIterator[EtcdCluster]:
    """Run a cluster for one test; skip where etcd is not installed."""
    wants_etcd()
    cluster = EtcdCluster(directory, size, tls_files=tls_files, extra=extra)
    try:
        await asyncio.to_thread(cluster.start)
        yield cluster
    finally:
        await asyncio.to_thread(cluster.stop)
