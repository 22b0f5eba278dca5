"""The proxy over an API: services and slices that are written are carried soon after, and balancers get addresses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import EndpointSlice, Node, Service, from_dict, replace
from pilothouse.node.services.batches import Batches
from pilothouse.node.services.kernel import KernelBackend
from pilothouse.node.services.loadbalancers import add_load_balancers, node_addresses
from pilothouse.node.services.nft import NftError
from pilothouse.node.services.proxy import ServiceProxy
from pilothouse.node.services.servicerules import ProxyNetwork
from pilothouse.operator import Harness, Manager
from pilothouse.testing import ControlPlane
from support.netkit import BRIDGE, NEEDS_NFT, Network, echo_tcp, network
from support.servicekit import endpoint, slice_of


@asynccontextmanager
async def api() -> AsyncIterator[Client]:
    async with (
        ControlPlane(lifecycle=False) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        yield client


def web(name: str = "web", **spec: Any) -> Service:
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}]} | spec}
    return from_dict(body, Service)


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made, contextlib.ExitStack() as stack:
        for name, address in (("a", "10.99.0.11"), ("client", "10.99.0.20")):
            made.pod(name, address)
        stack.enter_context(echo_tcp(made.within("a", lambda: socket.create_server(("", 8080))), "a"))
        yield made


def ask(address: str, port: int = 80) -> str:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2) as connection:
        return connection.makefile().readline().split()[0]
    return ""


@NEEDS_NFT
async def test_what_is_written_is_carried_soon_after_and_nothing_is_left(net: Network) -> None:
    async with api() as client:
        manager = Manager(client, metrics=Metrics())
        backend = KernelBackend(network=ProxyNetwork(pod_cidrs=("10.99.0.0/24",), bridge=BRIDGE))
        proxy = ServiceProxy(manager, "here", backend=backend)
        first = await client.create(web())
        await client.create(slice_of("web", [endpoint("10.99.0.11")]))
        async with manager:
            await proxy.start()
            await proxy.wait_synced()
            assert net.within("client", lambda: ask(first.spec.cluster_ip)) == "a"
            second = await client.create(web("more"))
            await client.create(slice_of("more", [endpoint("10.99.0.11")]))
            for _ in range(100):
                if net.within("client", lambda: ask(second.spec.cluster_ip)) == "a":
                    break
                await asyncio.sleep(0.02)
            else:
                pytest.fail("the second service is never carried")
            await client.delete(EndpointSlice, "web-1", "default")
            for _ in range(100):
                if not net.within("client", lambda: ask(first.spec.cluster_ip)):
                    break
                await asyncio.sleep(0.02)
            else:
                pytest.fail("the endpoint never goes")
            assert [each for each in proxy.problems() if "conntrack" not in each] == []
            await proxy.stop()
    left = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout  # noqa: ASYNC221
    assert "pilothouse" not in left


class Recording:
    """A back end that fails as often as told, and remembers."""

    name = "recording"

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.applied: list[list[str]] = []

    async def start(self) -> None: ...

    async def apply(self, changes: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise NftError("not now")
        self.applied.append(sorted(changes))

    async def check(self) -> bool:
        return True

    async def stop(self) -> None: ...

    def problems(self) -> list[str]:
        return []

    def figures(self) -> dict[str, float]:
        return {}


async def test_what_failed_is_tried_again_with_what_came_meanwhile() -> None:
    async with api() as client:
        manager = Manager(client, metrics=Metrics())
        backend = Recording(failures=2)
        proxy = ServiceProxy(manager, "here", backend=backend)
        for name in ("a", "b"):
            await client.create(web(name))
        async with manager:
            await proxy.start()
            await asyncio.sleep(0.1)
            assert "not now" in " ".join(proxy.problems())
            await client.create(web("c"))
            await asyncio.wait_for(proxy.wait_synced(), 5)
            assert {"default/a", "default/b", "default/c"} <= {*backend.applied[0]}
            await proxy.stop()


async def test_many_changes_are_one_batch() -> None:
    clock = FakeClock()
    calls: list[float] = []

    async def work() -> None:
        calls.append(clock.monotonic())

    batches = Batches("test", work, clock)
    batches.start()
    for _ in range(100):
        batches.poke()
    await clock.run(1)
    assert len(calls) == 1
    assert calls[0] <= 0.05
    batches.poke()
    await clock.run(1)
    assert len(calls) == 2
    await batches.stop()


def node(name: str, *addresses: tuple[str, str], ready: str = "True", **labels: str) -> Node:
    body = {
        "metadata": {"name": name, "labels": labels},
        "status": {
            "addresses": [{"type": kind, "address": address} for kind, address in addresses],
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }
    return from_dict(body, Node)


def test_which_addresses_a_balancer_has() -> None:
    nodes = [
        node("b", ("InternalIP", "10.0.0.2"), ("ExternalIP", "192.0.2.2"), ("Hostname", "b")),
        node("a", ("InternalIP", "10.0.0.1")),
        node("c", ("InternalIP", "10.0.0.3"), ready="False"),
    ]
    assert node_addresses(nodes) == ["10.0.0.1", "192.0.2.2"]


async def test_services_of_type_load_balancer_get_the_nodes_addresses() -> None:
    async with api() as client:
        harness = Harness(client)
        add_load_balancers(harness.manager)
        made = node("here", ("InternalIP", "192.0.2.10"))
        await client.create(made)
        await client.update_status(replace(await client.get(Node, "here"), status=made.status))
        await client.create(web(type="LoadBalancer"))
        await client.create(web("other", type="LoadBalancer", loadBalancerClass="example.com/other"))
        async with harness:
            await harness.converge()
            await harness.assert_stable()
            found = await client.get(Service, "web", "default")
            assert [each.ip for each in found.status.load_balancer.ingress] == ["192.0.2.10"]
            assert not (await client.get(Service, "other", "default")).status.load_balancer.ingress
            await client.patch(Service, "web", {"spec": {"type": "ClusterIP"}}, "default")
            await harness.converge()
            assert not (await client.get(Service, "web", "default")).status.load_balancer.ingress
