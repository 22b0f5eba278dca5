"""The cluster's DNS on sockets: over an API, by clients that people use, with resolvers behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.message
import dns.rcode
import dns.rrset
import pytest

from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import Namespace, Service, from_dict
from pilothouse.node.dns.forwarding import Forwarder, Upstream, UpstreamFailed
from pilothouse.node.dns.server import ClusterDns
from pilothouse.node.dns.wire import parse
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from support.netkit import NEEDS_NFT, Network, network

ADDRESS = f"127.{130 + os.getpid() % 60}.{os.getpid() // 60 % 250}.10"


def service(name: str, **spec: Any) -> Service:
    body = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80, "name": "http"}]} | spec,
    }
    return from_dict(body, Service)


class Resolver(asyncio.DatagramProtocol):
    """Somebody else's server: answers A questions by UDP, and whatever is long only by TCP."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_silent = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.is_silent:
            self.transport.sendto(self.answer(data, is_tcp=False), addr)

    def answer(self, data: bytes, *, is_tcp: bool) -> bytes:
        query = dns.message.from_wire(data)
        name = query.question[0].name
        self.asked.append(name.to_text())
        made = dns.message.make_response(query, recursion_available=True)
        if name.to_text().startswith("missing"):
            made.set_rcode(dns.rcode.NXDOMAIN)
        elif name.to_text().startswith("long") and not is_tcp:
            made.flags |= dns.flags.TC
        else:
            count = 100 if name.to_text().startswith("long") else 1
            made.answer.append(
                dns.rrset.from_text(name, 60, "IN", "A", *(f"192.0.2.{each + 1}" for each in range(count)))
            )
        return made.to_wire(max_size=65_535)

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = self.answer(await reader.readexactly(length), is_tcp=True)
        writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()


@asynccontextmanager
async def resolver() -> AsyncIterator[tuple[Resolver, Upstream]]:
    made = Resolver()
    server = await asyncio.start_server(made.tcp, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, ("127.0.0.1", port))
    try:
        yield made, Upstream("127.0.0.1", port)
    finally:
        server.close()
        transport.close()


@asynccontextmanager
async def cluster(address: str = ADDRESS, **options: Any) -> AsyncIterator[tuple[Client, ClusterDns]]:
    async with (
        ControlPlane(lifecycle=False) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        manager = Manager(client, metrics=Metrics())
        wanted: dict[str, Any] = {"port": 0, "upstreams": lambda: ()} | options
        server = ClusterDns(manager, address, **wanted)
        async with manager:
            await server.start()
            try:
                await server.wait_synced()
                yield client, server
            finally:
                await server.stop()


async def ask(
    server: ClusterDns, name: str, kind: str = "A", *, tcp: bool = False, **options: Any
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, **options)
    function = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await function(query, server.address, timeout=5, port=server.port)


def texts(found: dns.message.Message) -> list[str]:
    return [each.to_text() for rrset in found.answer for each in rrset]


async def eventually(check: Callable[[], Any], wanted: object) -> None:
    for _ in range(200):
        found = await check()
        if found == wanted:
            return
        await asyncio.sleep(0.02)
    assert found == wanted


async def test_names_follow_the_api() -> None:
    async with cluster() as (client, server):
        made = await client.create(service("web"))

        async def now() -> list[str]:
            return texts(await ask(server, "web.default.svc.cluster.local"))

        await eventually(now, [made.spec.cluster_ip])
        tcp = await ask(server, "_http._tcp.web.default.svc.cluster.local", "SRV", tcp=True)
        assert texts(tcp) == ["0 100 80 web.default.svc.cluster.local."]
        await client.delete(Service, "web", "default")
        await eventually(now, [])
        assert server.problems() == []
        await client.create(from_dict({"metadata": {"name": "team"}}, Namespace))

        async def pod() -> list[str]:
            return texts(await ask(server, "10-1-2-3.team.pod.cluster.local"))

        await eventually(pod, ["10.1.2.3"])


async def test_other_names_are_asked_of_resolvers_once() -> None:
    async with resolver() as (other, upstream), cluster(upstreams=lambda: [upstream]) as (client, server):
        answers = await asyncio.gather(*(ask(server, "example.com") for _ in range(20)))
        assert {tuple(texts(each)) for each in answers} == {("192.0.2.1",)}
        assert other.asked == ["example.com."]
        assert dns.rcode.to_text((await ask(server, "missing.example")).rcode()) == "NXDOMAIN"
        assert len(texts(await ask(server, "long.example", tcp=True))) == 100
        cut = await ask(server, "long.example")
        assert cut.flags & dns.flags.TC
        with_edns = await ask(server, "edns.example", use_edns=0, payload=1232)
        assert (with_edns.edns, texts(with_edns)) == (0, ["192.0.2.1"])
        await client.create(service("far", type="ExternalName", externalName="else.example", ports=None))

        async def alias() -> list[str]:
            return texts(await ask(server, "far.default.svc.cluster.local"))

        await eventually(alias, ["else.example.", "192.0.2.1"])


async def test_resolvers_that_are_silent_are_passed_over_and_bounded() -> None:
    async with resolver() as (dead, first), resolver() as (_, second):
        dead.is_silent = True
        forwarder = Forwarder(lambda: [first, second], seconds=1.0, flights=2)
        query = parse(dns.message.make_query("a.example", "A").to_wire())
        assert texts(dns.message.from_wire(await forwarder.ask(query))) == ["192.0.2.1"]
        alone = Forwarder(lambda: [first], seconds=0.1, flights=2)
        questions = [parse(dns.message.make_query(f"{each}.example", "A").to_wire()) for each in "abc"]
        results = await asyncio.gather(*(alone.ask(each) for each in questions), return_exceptions=True)
        assert all(isinstance(each, UpstreamFailed) for each in results)
        assert "2 questions wait" in str(results[2])
        with pytest.raises(UpstreamFailed, match="there is no resolver"):
            await Forwarder(list).ask(query)


async def test_answers_that_are_waited_for_are_bounded() -> None:
    async with resolver() as (dead, upstream), cluster(upstreams=lambda: [upstream]) as (_, server):
        dead.is_silent = True
        server._sockets._most = 3
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number in range(10):
                sock.sendto(dns.message.make_query(f"{number}.example", "A").to_wire(), (server.address, server.port))
            for _ in range(100):
                await asyncio.sleep(0.01)
                if server._sockets.dropped:
                    break
        assert texts(await ask(server, "dns-version.cluster.local", "TXT")) == ['"1.1.0"']
        assert (server._sockets.in_flight, server._sockets.dropped) == (3, 7)


async def test_kept_answers_grow_old() -> None:
    now = [0.0]
    async with resolver() as (other, upstream):
        forwarder = Forwarder(lambda: [upstream], now=lambda: now[0])
        query = parse(dns.message.make_query("a.example", "A").to_wire())

        async def ttl() -> int:
            return dns.message.from_wire(await forwarder.ask(query)).answer[0].ttl

        assert await ttl() == 60
        now[0] = 20.0
        assert await ttl() == 40
        assert len(other.asked) == 1
        now[0] = 31.0
        assert await ttl() == 60
        assert len(other.asked) == 2


async def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
        async with cluster(port=port) as (_, server):
            assert server.port not in {0, port}
            assert str(server.port) in server.problems()[0]
            assert texts(await ask(server, "dns-version.cluster.local", "TXT")) == ['"1.1.0"']


async def test_noise_does_not_stop_it() -> None:
    async with cluster() as (_, server):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for noise in (b"", b"x" * 11, b"\xff" * 512, bytes(12), os.urandom(100)):
                sock.sendto(noise, (server.address, server.port))
        reader, writer = await asyncio.open_connection(server.address, server.port)
        writer.write(b"\0\5hello")
        assert await reader.read() == b""
        writer.close()
        assert texts(await ask(server, "dns-version.cluster.local", "TXT")) == ['"1.1.0"']


def _loopback() -> str:
    return subprocess.run(["ip", "addr", "show", "lo"], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        made.pod("client", "10.99.0.20")
        directory = Path("/etc/netns") / made.namespace("client")
        directory.mkdir(parents=True)
        try:
            lines = "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
            (directory / "resolv.conf").write_text(lines)
            yield made
        finally:
            shutil.rmtree(directory)
            with contextlib.suppress(OSError):
                directory.parent.rmdir()


@NEEDS_NFT
async def test_a_pod_finds_a_service_by_its_short_name(net: Network) -> None:
    async with cluster("10.96.0.10", port=53) as (client, server):
        assert (server.port, server.problems()) == (53, [])
        made = await client.create(service("web"))

        async def within(*command: str) -> str:
            words = ["ip", "netns", "exec", net.namespace("client"), *command]
            process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
            return (await process.communicate())[0].decode()

        async def found() -> str:
            return (await within("getent", "ahostsv4", "web")).split(" ")[0]

        await eventually(found, made.spec.cluster_ip)
        if shutil.which("dig") is not None:
            assert "status: NXDOMAIN" in await within("dig", "nothing.default.svc.cluster.local")
            assert await within("dig", "+short", "+tcp", "web.default.svc.cluster.local") == f"{made.spec.cluster_ip}\n"
    assert "10.96.0.10" not in _loopback()
