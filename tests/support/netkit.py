"""A node's network for tests: a network namespace for the test itself, a bridge in it, and pods behind the bridge."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

__all__ = ["BRIDGE", "NEEDS_NFT", "NODE_ADDRESS", "Network", "echo_tcp", "echo_udp", "network"]

T = TypeVar("T")

BRIDGE = "phbr0"
NODE_ADDRESS = "192.168.77.1"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def _why_not() -> str:
    if os.geteuid() != 0:
        return "wants root, for network namespaces and nftables"
    for program, package in (("nft", "nftables"), ("ip", "iproute2")):
        if shutil.which(program) is None:
            return f"wants the program {program} (package {package})"
    done = subprocess.run(["unshare", "-n", "nft", "-c", "add table ip t"], capture_output=True, check=False)
    return f"nftables does not work here: {done.stderr.decode().strip()}" if done.returncode else ""


_REASON = _why_not()
NEEDS_NFT = pytest.mark.skipif(bool(_REASON), reason=_REASON)


class Network:
    """What the test has: pods by name, each an address and a network namespace."""

    def __init__(self) -> None:
        self._prefix = f"phtest{os.getpid()}x{next(_numbers)}"
        self._sockets: list[socket.socket] = []
        self.pods: dict[str, str] = {}

    def namespace(self, pod: str) -> str:
        """Return the name of a pod's network namespace."""
        return f"{self._prefix}-{pod}"

    def pod(self, name: str, address: str, *, bridge: str = BRIDGE, gateway: str = "10.99.0.1") -> str:
        """Make a pod and return its address."""
        namespace, link = self.namespace(name), f"v{len(self.pods)}"
        _run("ip", "netns", "add", namespace)
        self.pods[name] = address
        _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _run("ip", "link", "set", link, "master", bridge, "up")
        _run("ip", "link", "set", link, "type", "bridge_slave", "hairpin", "on")
        lines = f"link set lo up\nlink set eth0 up\naddr add {address}/24 dev eth0\nroute add default via {gateway}\n"
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=lines.encode(), check=True)
        return address

    def within(self, pod: str, function: Callable[[], T]) -> T:
        """Return what a function does in a pod's network, in a thread of its own."""
        found: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                with open(f"/run/netns/{self.namespace(pod)}", "rb") as file:
                    _check(_libc.setns(file.fileno(), _CLONE_NEWNET))
                found.append(function())
            except BaseException as error:  # noqa: BLE001  # raised again where it was asked for
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return found[0]

    def close(self) -> None:
        """Take the pods away."""
        for name in self.pods:
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "delete", self.namespace(name))


@contextmanager
def network() -> Iterator[Network]:
    """Put this thread, and what it starts, into a network namespace with a bridge and a way out, until the end."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    made = Network()
    try:
        _check(_libc.unshare(_CLONE_NEWNET))
        lines = [
            "link set lo up",
            f"link add {BRIDGE} type bridge",
            f"addr add 10.99.0.1/24 dev {BRIDGE}",
            f"link set {BRIDGE} up",
            "link add uplink type veth peer name far",
            f"addr add {NODE_ADDRESS}/24 dev uplink",
            "link set uplink up",
            "link set far up",
            "route add default via 192.168.77.254",
        ]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode() + b"\n", check=True)
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as file:
            file.write("1")
        yield made
    finally:
        made.close()
        _check(_libc.setns(home, _CLONE_NEWNET))
        os.close(home)


@contextmanager
def echo_tcp(listener: socket.socket, name: str) -> Iterator[None]:
    """Answer each connection with a name, the client's address, and what it sends, in a thread."""

    def serve() -> None:
        while True:
            try:
                connection, where = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                connection.sendall(f"{name} {where[0]}\n".encode())

    with _thread(serve):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@contextmanager
def echo_udp(sock: socket.socket, name: str) -> Iterator[None]:
    """Answer each datagram with a name and the client's address, in a thread."""
    sock.settimeout(0.1)
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            try:
                _, where = sock.recvfrom(2048)
                sock.sendto(f"{name} {where[0]}\n".encode(), where)
            except TimeoutError:
                continue
            except OSError:
                return

    with _thread(serve):
        try:
            yield
        finally:
            ending.set()
    sock.close()


@contextmanager
def _thread(target: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _check(status: int) -> None:
    if status != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
