"""How soon a gateway goes by a changed route, beside others (100, 1,000), each with a Service and an endpoint.

From a write of weights, or of endpoints, to its effect on all workers (goal: 50 ms, 100 at the 99th of 100); the push
alone (20 ms); how long a route takes when all are created at once, and how much work the last tenth of them is against
the first; the memory of a worker. An API server in this process, the controller of gateways, and the data plane's
workers as processes of their own; connections that they have accepted are asked after each change, and have to answer
by it. No peer: others have data planes of their own.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec

from _kit import Spread, arguments, fraction, note, report, resident_bytes, run
from pilothouse.client import Client
from pilothouse.kinds.structs import EndpointSlice, from_dict
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from pilothouse.traffic.config import Configuration, HttpRoute, Weighted
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.controller import add_gateway
from pilothouse.traffic.control.install import CLASS, install
from pilothouse.traffic.control.kinds import Gateway, HTTPRoute
from pilothouse.traffic.gateway import Gateway as Workers
from pilothouse.traffic.gateway import GatewayOptions

ADDRESS = "127.93.0.1"
CREATORS = 8
CONNECTIONS = 6


class Observed(Workers):
    """Workers, and the moments at which all of them went by a configuration."""

    def __init__(self, options: GatewayOptions) -> None:
        super().__init__(options)
        self.taken: list[tuple[float, Configuration]] = []
        self.pushed = asyncio.Event()

    async def push(self, configuration: Configuration) -> None:
        """Push, and note when it is done."""
        await super().push(configuration)
        self.taken.append((time.perf_counter(), self.configuration))
        self.pushed.set()

    async def until(self, test: Any) -> float:
        """Return the moment of the first configuration, since the list was emptied, that passes."""
        async with asyncio.timeout(30):
            while True:
                for moment, configuration in self.taken:
                    if test(configuration):
                        return moment
                self.pushed.clear()
                await self.pushed.wait()


class Clients:
    """Connections to the gateway."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pairs: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        """Connect."""
        self.pairs = [await asyncio.open_connection(ADDRESS, self.port) for _ in range(CONNECTIONS)]

    async def all_get(self, word: bytes) -> None:
        """See that each answer is this word."""
        for reader, writer in self.pairs:
            writer.write(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            found = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
            if found != word:
                raise SystemExit(f"{found!r} was answered after all workers had taken up {word!r}")


def own_address() -> str:
    """Return an address of this machine that is not of the loopback device, which endpoints may not have."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))
        return str(sock.getsockname()[0])


OWN = own_address()


def free_port() -> int:
    """Return a port that nobody has."""
    with socket.socket() as sock:
        sock.bind((ADDRESS, 0))
        return int(sock.getsockname()[1])


async def answering(word: bytes) -> tuple[asyncio.Server, int]:
    """Serve one word; return where."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(word), word))
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, OWN, 0)
    return server, int(server.sockets[0].getsockname()[1])


def route(name: str, host: str, *weights: tuple[str, int]) -> HTTPRoute:
    """Return a route of one host to services."""
    spec = {"parentRefs": [{"name": "front"}], "hostnames": [host], "rules": rules(*weights)}
    return from_dict({"metadata": {"name": name}, "spec": spec}, HTTPRoute)


def rules(*weights: tuple[str, int]) -> list[dict[str, Any]]:
    """Return rules of one with some backends."""
    return [{"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in weights]}]


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


async def create_all(client: Client, others: int) -> list[float]:
    """Create routes, several at a time; return how long this process had worked when each was created."""
    moments: list[float] = []

    async def some(numbers: Iterable[int]) -> None:
        for number in numbers:
            await add_service(client, f"s{number}", 9)
            await client.create(route(f"r{number}", f"h{number}.example", (f"s{number}", 1)))
            moments.append(time.process_time())

    numbers = iter(range(others))
    await asyncio.gather(*(some(numbers) for _ in range(CREATORS)))
    return moments


async def measure(others: int, changes: int, workers: int) -> None:
    """Measure with so many other routes."""
    (_, one), (_, two) = await answering(b"one"), await answering(b"two")
    plane = Observed(GatewayOptions(workers=workers))
    clients = Clients(free_port())
    shared: dict[str, Any] = {"digits": 1, "routes": others, "workers": workers}
    beside = f"beside {others:,} others"
    async with ControlPlane() as server, Client.for_transport(server.transport, server.user) as client:
        await install(client)
        manager = Manager(client)
        controller = add_gateway(manager, plane, Addresses((f"{ADDRESS}/32",)))
        async with manager:
            listeners = [{"name": "http", "port": clients.port, "protocol": "HTTP"}]
            spec: dict[str, Any] = {"gatewayClassName": CLASS, "listeners": listeners}
            await client.create(from_dict({"metadata": {"name": "front"}, "spec": spec}, Gateway))
            await add_service(client, "one", one)
            await add_service(client, "two", two)
            await client.create(route("measured", "a.example", ("one", 1), ("two", 0)))
            began = time.perf_counter()
            moments = await create_all(client, others)
            served = await plane.until(lambda each: len(each.routes) == others + 1)
            tenth = max(1, others // 10)
            ratio = (moments[-1] - moments[-tenth - 1]) / (moments[tenth] - moments[0])
            took = (served - began) / others * 1e3
            report(
                f"gateway, routes created at once, {others:,}", took, "ms a route", last_to_first_tenth=ratio, **shared
            )
            while not controller.is_idle:  # noqa: ASYNC110  it has no event for it
                await asyncio.sleep(0.05)
            note(f"statuses are written {time.perf_counter() - served:.1f} s later")
            gc.collect()
            await clients.open()
            await clients.all_get(b"one")
            weights = [await changed_weights(client, plane, clients, number) for number in range(changes)]
            report(
                f"gateway, change of weights to effect on all workers, {beside}",
                Spread.of(weights),
                "ms",
                goal=50,
                p99=fraction(sorted(weights), 0.99),
                **shared,
            )
            slices = [await changed_slice(client, plane, clients, number, one, two) for number in range(changes)]
            report(
                f"gateway, change of endpoints to effect on all workers, {beside}", Spread.of(slices), "ms", **shared
            )
            memory = max(resident_bytes(pid) for pid in plane.pids) / 2**20
            report(f"gateway, memory of a worker, {beside}", memory, "MiB", **shared)
    await pushes(plane.configuration, changes, shared)


async def changed_weights(client: Client, plane: Observed, clients: Clients, number: int) -> float:
    """Give all requests of the route to the other service; return the milliseconds until all workers do."""
    share = number % 2
    word = (b"two", b"one")[share]
    weights = [("one", share), ("two", 1 - share)]
    plane.taken.clear()
    began = time.perf_counter()
    write = asyncio.create_task(client.patch(HTTPRoute, "measured", {"spec": {"rules": rules(*weights)}}))

    def is_so(configuration: Configuration) -> bool:
        found = next(each for each in configuration.routes if each.name.endswith("/measured"))
        return [each.weight for each in found.rules[0].backends] == [share, 1 - share]

    took = await plane.until(is_so) - began
    await clients.all_get(word)
    await write
    return took * 1e3


async def changed_slice(client: Client, plane: Observed, clients: Clients, number: int, one: int, two: int) -> float:
    """Change the port of the endpoints that the route goes to; return the milliseconds until all workers know."""
    word, port = (b"one", one) if number % 2 else (b"two", two)
    plane.taken.clear()
    began = time.perf_counter()
    patches = [
        asyncio.create_task(client.patch(EndpointSlice, name, {"ports": [{"port": port, "name": ""}]}))
        for name in ("one", "two")
    ]

    def is_so(configuration: Configuration) -> bool:
        backends = [configuration.backends[f"default/{name}:80"] for name in ("one", "two")]
        return all(each.endpoints[0].port == port for each in backends)

    took = await plane.until(is_so) - began
    await clients.all_get(word)
    await asyncio.gather(*patches)
    return took * 1e3


async def pushes(configuration: Configuration, changes: int, shared: dict[str, Any]) -> None:
    """Measure pushes of one changed weight, without a server."""
    workers = Workers(GatewayOptions(workers=shared["workers"]))
    await workers.start()
    took = []
    for number in range(changes + 1):
        generation = configuration.generation + number
        changed = tuple(weighted(each, number) for each in islice(configuration.routes, 1))
        made = msgspec.structs.replace(
            configuration, generation=generation, routes=(*changed, *configuration.routes[1:])
        )
        began = time.perf_counter()
        await workers.push(made)
        took.append((time.perf_counter() - began) * 1e3)
    await workers.stop(drain=False)
    name = f"gateway, push of a changed weight, beside {shared['routes']:,} others"
    report(name, Spread.of(took[1:]), "ms", goal=20, p99=fraction(sorted(took[1:]), 0.99), first=took[0], **shared)


def weighted(route: HttpRoute, number: int) -> HttpRoute:
    """Return a route with other weights."""
    backends = tuple(Weighted(backend=each.backend, weight=number + 1) for each in route.rules[0].backends)
    rule = msgspec.structs.replace(route.rules[0], backends=(*backends, Weighted(backend=backends[0].backend)))
    return msgspec.structs.replace(route, rules=(rule,))


def main() -> None:
    """Measure."""
    given = arguments(__doc__, changes=100, workers=2)
    for others in (10,) if given.quick else (100, 1_000):
        run(measure(others, 4 if given.quick else given.changes, given.workers))


if __name__ == "__main__":
    main()
