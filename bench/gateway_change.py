"""Milliseconds from a written change of a route, or of endpoints, to the first answer that shows it.

Goal: 50. An API server in this process, the controller of gateways, and the data plane's workers as processes of their
own. A client asks again and again on one connection; the moment before the write is sent is the beginning. Beside the
measured route there are others (100, 1,000), each with a Service and an endpoint. No peer: others have data planes of
their own.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from _kit import Spread, arguments, note, report, run
from pilothouse.client import Client
from pilothouse.kinds.structs import EndpointSlice, from_dict
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.controller import add_gateway
from pilothouse.traffic.control.install import CLASS, install
from pilothouse.traffic.control.kinds import Gateway, HTTPRoute
from pilothouse.traffic.gateway import Gateway as Workers
from pilothouse.traffic.gateway import GatewayOptions

ADDRESS = "127.93.0.1"


def own_address() -> str:
    """Return an address of this machine that is not of the loopback device, which endpoints may not have."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])


OWN = own_address()


async def answering(word: bytes) -> asyncio.Server:
    """Serve one word."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(word), word))
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    return await asyncio.start_server(serve, OWN, 0)


def port_of(server: asyncio.Server) -> int:
    """Return where a server listens."""
    return int(server.sockets[0].getsockname()[1])


def route(name: str, service: str, host: str) -> HTTPRoute:
    """Return a route of one host to one service."""
    rule = {"backendRefs": [{"name": service, "port": 80}]}
    spec = {"parentRefs": [{"name": "front"}], "hostnames": [host], "rules": [rule]}
    return from_dict({"metadata": {"name": name}, "spec": spec}, HTTPRoute)


async def add_service(client: Client, name: str, port: int) -> None:
    """Create a Service with one endpoint on this machine."""
    services = client.dynamic("v1", "Service")
    spec = {"ports": [{"port": 80}], "clusterIP": "None"}
    await services.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
    tree = {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": port, "name": ""}],
        "endpoints": [{"addresses": [OWN]}],
    }
    await client.create(from_dict(tree, EndpointSlice))


async def until(word: bytes, port: int, began: float, limit: float = 20.0) -> float:
    """Ask until an answer is this word; return the milliseconds since `began`."""
    reader, writer = await asyncio.open_connection(ADDRESS, port)
    try:
        while time.perf_counter() - began < limit:
            writer.write(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if await reader.readexactly(length) == word:
                return (time.perf_counter() - began) * 1e3
            await asyncio.sleep(0.0005)
    finally:
        writer.close()
    raise SystemExit(f"{word!r} was not seen within {limit:g} s")


async def measure(others: int, changes: int, workers: int) -> None:
    """Measure with so many other routes."""
    one, two = await answering(b"one"), await answering(b"two")
    port = 18_000 + others % 1000
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install(client)
        manager = Manager(client)
        add_gateway(manager, Workers(GatewayOptions(workers=workers)), Addresses((f"{ADDRESS}/32",)))
        async with manager:
            listeners = [{"name": "http", "port": port, "protocol": "HTTP"}]
            spec: dict[str, Any] = {"gatewayClassName": CLASS, "listeners": listeners}
            await client.create(from_dict({"metadata": {"name": "front"}, "spec": spec}, Gateway))
            await add_service(client, "one", port_of(one))
            await add_service(client, "two", port_of(two))
            for number in range(others):
                await add_service(client, f"s{number}", 9)
                await client.create(route(f"r{number}", f"s{number}", f"h{number}.example"))
            began = time.perf_counter()
            await client.create(route("measured", "one", "a.example"))
            await until_up(port, began)
            await asyncio.sleep(1)
            routes = [await changed_route(client, port, number) for number in range(changes)]
            await changed_route(client, port, 1)
            slices = [await changed_slice(client, port, number, one, two) for number in range(changes)]
    shared: dict[str, Any] = {"digits": 1, "goal": 50, "routes": others, "workers": workers}
    report(f"gateway, change of a route to effect, beside {others:,} others", Spread.of(routes), "ms", **shared)
    report(f"gateway, change of endpoints to effect, beside {others:,} others", Spread.of(slices), "ms", **shared)


async def until_up(port: int, began: float) -> None:
    """Wait for the first answer."""
    while True:
        try:
            note(f"the first answer after {await until(b'one', port, began):.0f} ms")
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.05)
        else:
            return


async def changed_route(client: Client, port: int, number: int) -> float:
    """Change the service that the route goes to."""
    service = "one" if number % 2 else "two"
    rules = [{"backendRefs": [{"name": service, "port": 80}]}]
    began = time.perf_counter()
    write = asyncio.create_task(client.patch(HTTPRoute, "measured", {"spec": {"rules": rules}}))
    took = await until(service.encode(), port, began)
    await write
    return took


async def changed_slice(client: Client, port: int, number: int, one: asyncio.Server, two: asyncio.Server) -> float:
    """Change the port of the endpoints that the route goes to."""
    word, server = (b"one", one) if number % 2 else (b"two", two)
    patch = {"ports": [{"port": port_of(server), "name": ""}]}
    began = time.perf_counter()
    write = asyncio.create_task(client.patch(EndpointSlice, "one", patch))
    took = await until(word, port, began)
    await write
    return took


def main() -> None:
    """Measure."""
    given = arguments(__doc__, changes=30, workers=2)
    for others in (10,) if given.quick else (100, 1_000):
        run(measure(others, 4 if given.quick else given.changes, given.workers))


if __name__ == "__main__":
    main()
