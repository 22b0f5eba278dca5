"""Services: what a connection through a cluster address costs against a direct one, and how fast rules follow changes.

By nftables from one pod to another, both with a network namespace of their own (root and Debian's `nft`), and by the
user-space proxy on loopback. `connect` opens a connection, has one byte answered and closes it; `round trip` is 64
bytes there and back on one connection; `bulk` is one connection's throughput. The peer is the same without the proxy,
in turns in the same run. Rules are counted in a table of 1,000 and 10,000 services, each with two endpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from _kit import Spread, arguments, fraction, note, report, run
from pilothouse.kinds.structs import EndpointSlice, Service, from_dict
from pilothouse.node.services.kernel import KernelBackend
from pilothouse.node.services.proxying import Backend
from pilothouse.node.services.selection import NodeFacts
from pilothouse.node.services.servicerules import ProxyNetwork
from pilothouse.node.services.tracking import ServiceTracker
from pilothouse.node.services.userspace import UserspaceBackend

_MARK = "PILOTHOUSE_BENCH_NETWORK"
_SERVER, _CLIENT, _CLUSTER = "10.99.0.11", "10.99.0.20", "10.96.0.10"
_PORT = 8080
_NEWNET = 0x40000000
_SERVE = """
import socket, sys, threading
def serve(c):
    with c:
        c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        what = c.recv(1)
        if what == b"c":
            c.sendall(b"x")
        elif what == b"e":
            while data := c.recv(65536):
                c.sendall(data)
        elif what == b"b":
            block = bytes(1 << 20)
            try:
                while True:
                    c.sendall(block)
            except OSError:
                pass
s = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1024)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


def service(name: str, address: str, port: int = 80) -> Service:
    """Make a service of one port."""
    spec = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": port, "protocol": "TCP"}]}
    return from_dict({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, Service)


def slice_of(name: str, *addresses: str) -> EndpointSlice:
    """Make a slice of a service's endpoints, all on this node."""
    body = {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": _PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each], "nodeName": "here", "conditions": {"ready": True}} for each in addresses],
    }
    return from_dict(body, EndpointSlice)


async def lead(backend: Backend, cluster: str, port: int, target: str) -> None:
    """Have a cluster address lead to a server."""
    tracker = ServiceTracker(NodeFacts(name="here"))
    tracker.set_service("default/web", service("web", cluster, port))
    tracker.set_slice("default/web", slice_of("web", target))
    await backend.start()
    await backend.apply(tracker.changes())


@contextlib.contextmanager
def server(address: str, *within: str) -> Iterator[None]:
    """Run the server that is asked, in a process of its own."""
    command = [*within, sys.executable, "-c", _SERVE, address, str(_PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def opened(where: tuple[str, int], what: bytes) -> socket.socket:
    """Return a connection on which the server does what the byte says."""
    sock = socket.create_connection(where, timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(what)
    return sock


def connects(where: tuple[str, int], seconds: float) -> list[float]:
    """Return how long connections took, in µs."""
    found = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        with opened(where, b"c") as sock:
            sock.recv(1)
        found.append((time.perf_counter() - begun) * 1e6)
    return sorted(found)


def round_trips(where: tuple[str, int], seconds: float) -> list[float]:
    """Return how long 64 bytes took there and back, in µs."""
    found = []
    with opened(where, b"e") as sock:
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            sock.sendall(bytes(64))
            left = 64
            while left:
                left -= len(sock.recv(left))
            found.append((time.perf_counter() - begun) * 1e6)
    return sorted(found)


def bulk(where: tuple[str, int], seconds: float) -> float:
    """Return the throughput of one connection, in MB/s."""
    buffer = bytearray(1 << 20)
    with opened(where, b"b") as sock:
        begun, size = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            size += sock.recv_into(buffer)
        return size / (time.perf_counter() - begun) / 1e6


def within(namespace: str, function: Callable[[], None]) -> None:
    """Run a function in a network namespace, in a thread of its own."""

    def enter() -> None:
        with open(f"/run/netns/{namespace}", "rb") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        function()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()


def compare(name: str, through: tuple[str, int], direct: tuple[str, int], seconds: float, rounds: int) -> None:
    """Measure through the proxy and direct, in turns, and report."""
    measures: dict[str, Callable[[tuple[str, int]], float]] = {
        "connect_p50": lambda where: fraction(connects(where, seconds), 0.5),
        "round_trip_p50": lambda where: fraction(round_trips(where, seconds), 0.5),
        "bulk": lambda where: bulk(where, seconds),
    }
    for what, function in measures.items():
        ours, theirs = [], []
        for _ in range(rounds):
            theirs.append(function(direct))
            ours.append(function(through))
        unit = "MB/s" if what == "bulk" else "µs"
        report(
            f"service_proxy_{name}_{what}",
            Spread.of(ours),
            unit,
            peer="direct",
            peer_spread=Spread.of(theirs),
            digits=0 if what == "bulk" else 1,
        )


def kernel(seconds: float, rounds: int) -> None:
    """Measure nftables between two pods, in the network namespace that this process has for itself."""
    names = {_SERVER: f"phbench{os.getpid()}s", _CLIENT: f"phbench{os.getpid()}c"}
    lines = ["link set lo up", "link add br0 type bridge", "addr add 10.99.0.1/24 dev br0", "link set br0 up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as file:
        file.write("1")
    try:
        for at, (address, name) in enumerate(names.items()):
            subprocess.run(["ip", "netns", "add", name], check=True)
            lines = [f"link add v{at} type veth peer name eth0 netns {name}", f"link set v{at} master br0 up"]
            subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)
            lines = ["link set lo up", "link set eth0 up", f"addr add {address}/24 dev eth0"]
            lines.append("route add default via 10.99.0.1")
            subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines).encode(), check=True)
        backend = KernelBackend(network=ProxyNetwork(pod_cidrs=("10.99.0.0/24",), bridge="br0"), families=(4,))
        run(lead(backend, _CLUSTER, 80, _SERVER))
        with server(_SERVER, "ip", "netns", "exec", names[_SERVER]):
            within(names[_CLIENT], lambda: compare("nftables", (_CLUSTER, 80), (_SERVER, _PORT), seconds, rounds))
        run(backend.stop())
        for count in (100,) if rounds == 1 else (1_000, 10_000):
            run(follow(count))
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False)


async def follow(count: int) -> None:
    """Measure how long rules take for all services, and for one endpoint more."""
    backend = KernelBackend(families=(4,))
    tracker = ServiceTracker(NodeFacts(name="here"))
    await backend.start()
    for number in range(count):
        name, address = f"s{number}", f"10.{100 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}"
        tracker.set_service(f"default/{name}", service(name, address))
        tracker.set_slice(f"default/{name}", slice_of(name, "10.99.0.11", "10.99.0.12"))
    begun = time.perf_counter()
    await backend.apply(tracker.changes())
    report(f"service_proxy_rules_all_{count}", (time.perf_counter() - begun) * 1e3, "ms")
    times = []
    for step in range(20):
        tracker.set_slice("default/s7", slice_of("s7", f"10.99.1.{step + 1}", "10.99.0.12"))
        begun = time.perf_counter()
        await backend.apply(tracker.changes())
        times.append((time.perf_counter() - begun) * 1e3)
    report(f"service_proxy_rules_one_of_{count}", Spread.of(times), "ms")
    await backend.stop()


def userspace(seconds: float, rounds: int) -> None:
    """Measure the user-space proxy, in a thread of its own as it would run in another process."""
    base = f"127.{64 + os.getpid() % 60}.{os.getpid() // 60 % 250}"
    child = os.fork()
    if not child:
        try:
            run(_serve_userspace(base))
        finally:
            os._exit(0)
    try:
        with server(f"{base}.11"):
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection((f"{base}.1", _PORT), timeout=1):
                    break
                time.sleep(0.05)
            compare("userspace", (f"{base}.1", _PORT), (f"{base}.11", _PORT), seconds, rounds)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


async def _serve_userspace(base: str) -> None:
    await lead(UserspaceBackend(), f"{base}.1", _PORT, f"{base}.11")
    await asyncio.sleep(3_600)


def main() -> None:
    """Measure what this machine allows."""
    args = arguments(__doc__, seconds=2, rounds=5)
    seconds, rounds = (0.2, 1) if args.quick else (float(args.seconds), args.rounds)
    can = os.geteuid() == 0 and all(shutil.which(each) for each in ("nft", "ip", "unshare"))
    if can and not os.environ.get(_MARK):
        # A network of its own: nothing of the machine's is touched.
        os.execvpe("unshare", ["unshare", "-n", sys.executable, *sys.argv], os.environ | {_MARK: "1"})
    if can:
        kernel(seconds, rounds)
    else:
        note("nftables is left out: it wants root, nft (package nftables) and ip (package iproute2)")
    userspace(seconds, rounds)


if __name__ == "__main__":
    main()
