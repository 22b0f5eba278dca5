"""Pods of different nodes reach each other, and see each other's addresses: by routes that follow the nodes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.kinds.structs import Node, from_dict
from pilothouse.node.process.ipam import AddressPool
from pilothouse.node.process.marks import MachineNetwork, Route
from pilothouse.node.process.network import ensure_way_out
from pilothouse.node.services.noderoutes import NodePlace, NodeRoutes, place_of_node, plan_routes
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from support.netkit import BRIDGE, NEEDS_NFT, NODE_ADDRESS, Network, echo_tcp, network
from support.nodekit import eventually

CLUSTER = "10.99.0.0/16"
PLACES = {
    "a": NodePlace(("10.99.0.0/24",), ("192.0.2.1",)),
    "b": NodePlace(("10.99.1.0/24",), ("192.0.2.2",)),
    "c": NodePlace(("10.99.2.0/24", "fd00:2::/64"), ("192.0.2.3", "2001:db8::3")),
}


def node(name: str, cidr: str, address: str) -> dict[str, Any]:
    status = {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]}
    return {"kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}, "status": status}


def test_each_node_wants_routes_to_all_others() -> None:
    wanted, problems = plan_routes("a", PLACES)
    assert problems == []
    assert wanted == {
        Route("10.99.1.0/24", "192.0.2.2"),
        Route("10.99.2.0/24", "192.0.2.3"),
        Route("fd00:2::/64", "2001:db8::3"),
    }
    assert place_of_node(from_dict(node("b", "10.99.1.0/24", "192.0.2.2"), Node)) == PLACES["b"]


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        (NodePlace(("10.99.0.128/25",), ("192.0.2.9",)), "is partly that of node a"),
        (NodePlace(("10.99.0.0/16",), ("192.0.2.9",)), "is partly that of node a"),
        (NodePlace(("10.99.1.0/24",), ("192.0.2.9",)), "is partly that of node b"),
        (NodePlace(("10.98.0.0/24",), ("192.0.2.9",)), "is not part of 10.99.0.0/16"),
        (NodePlace(("0.0.0.0/0",), ("192.0.2.9",)), "is not part of 10.99.0.0/16"),
        (NodePlace(("10.99.9.0/24",), ("10.99.9.1",)), "has the node address 10.99.9.1 in it"),
        (NodePlace((), ("192.0.2.9",)), ""),
        (NodePlace(("10.99.9.0/24",), ()), ""),
        (NodePlace(("10.99.9.0/24",), ("192.0.2.1",)), ""),
        (NodePlace(("10.99.9.0/24",), ("127.0.0.1", "fd00::9")), ""),
        (NodePlace(("nonsense",), ("192.0.2.9", "nonsense")), ""),
    ],
)
def test_no_node_takes_what_is_for_others(place: NodePlace, problem: str) -> None:
    expected, _ = plan_routes("a", PLACES, "10.99.0.0/16")
    wanted, problems = plan_routes("a", PLACES | {"evil": place}, "10.99.0.0/16")
    assert wanted == expected
    found = [each for each in problems if "evil" in each]
    assert [problem] == [each.removeprefix(f"no route to pods of node evil: {place.cidrs[0]} ") for each in found] or (
        not problem and not found
    )


class Two:
    """Two machines of one network: this thread's network namespace, and one beside it with a bridge and a pod."""

    def __init__(self, made: Network) -> None:
        self.made = made
        made.pod("near", "10.99.0.5")
        run = self._run
        run("ip", "netns", "add", made.namespace("other"))
        made.pods["other"] = ""
        run("ip", "link", "set", "far", "netns", made.namespace("other"))
        self._other("link set lo up", "addr add 192.168.77.2/24 dev far", "link set far up")
        self._other("link add br0 type bridge", "addr add 10.99.1.1/24 dev br0", "link set br0 up")
        run("ip", "netns", "add", made.namespace("distant"))
        made.pods["distant"] = "10.99.1.5"
        self._other(f"link add v0 type veth peer name eth0 netns {made.namespace('distant')}")
        self._other("link set v0 master br0 up")
        for line in ("link set lo up", "link set eth0 up", "addr add 10.99.1.5/24 dev eth0"):
            run("ip", "-n", made.namespace("distant"), *line.split())
        run("ip", "-n", made.namespace("distant"), "route", "add", "default", "via", "10.99.1.1")
        made.within("other", lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii"))

    def seen_by(self, pod: str, other: str, address: str) -> str:
        """Return the address under which a server in one pod sees a client in another."""

        def listen() -> socket.socket:
            return socket.create_server((address, 0))

        def ask(port: int) -> str:
            with socket.create_connection((address, port), 5) as found:
                return found.recv(100).decode().split()[1]

        listener = self.made.within(other, listen)
        port = listener.getsockname()[1]
        with echo_tcp(listener, "pod"):
            return self.made.within(pod, lambda: ask(port))

    def _other(self, *lines: str) -> None:
        for line in lines:
            self._run("ip", "-n", self.made.namespace("other"), *line.split())

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)


@NEEDS_NFT
def test_pods_of_two_nodes_see_each_other(tmp_path: Path) -> None:
    with network() as made:
        two = Two(made)
        asyncio.run(_two_nodes(two, tmp_path))


async def _two_nodes(two: Two, tmp_path: Path) -> None:
    made = two.made
    assert await ensure_way_out(BRIDGE, AddressPool(str(tmp_path), "10.99.0.0/24"), CLUSTER) == ""
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        manager = Manager(client)
        here = NodeRoutes(manager, "here", cluster_cidr=CLUSTER)
        there = NodeRoutes(manager, "there", cluster_cidr=CLUSTER, network=lambda: made.within("other", MachineNetwork))
        with contextlib.closing(MachineNetwork()) as machine:
            machine.put_route(Route("10.99.200.0/24", "192.168.77.9"))  # what an earlier agent left
            machine.put_route(Route("10.50.0.0/24", "192.168.77.9"))  # of another cluster
            async with manager:
                for routes in (here, there):
                    await routes.start()
                await _create(plane, node("here", "10.99.0.0/24", NODE_ADDRESS))
                await _create(plane, node("there", "10.99.1.0/24", "192.168.77.2"))
                kept = Route("10.50.0.0/24", "192.168.77.9")
                await eventually(lambda: machine.routes() == {kept, Route("10.99.1.0/24", "192.168.77.2")})
                await here.wait_synced()
                await there.wait_synced()
                assert two.seen_by("near", "distant", "10.99.1.5") == "10.99.0.5"
                assert two.seen_by("distant", "near", "10.99.0.5") == "10.99.1.5"
                assert two.seen_by("near", "other", "192.168.77.2") == NODE_ADDRESS  # no pod: under the node's address
                assert here.problems() == there.problems() == []

                await _create(plane, node("third", "10.99.3.0/24", "192.168.77.3"))
                await _create(plane, node("remote", "10.99.4.0/24", "203.0.113.4"))
                await eventually(lambda: Route("10.99.3.0/24", "192.168.77.3") in machine.routes())
                change = {"status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.4"}]}}
                await plane.call("PATCH", "/api/v1/nodes/third/status", change)
                await eventually(lambda: Route("10.99.3.0/24", "192.168.77.4") in machine.routes())
                await plane.call("DELETE", "/api/v1/nodes/third")
                await eventually(lambda: not any(each.network == "10.99.3.0/24" for each in machine.routes()))
                await here.stop()
                await there.stop()
            assert machine.routes() == {kept}


async def _create(plane: ControlPlane, body: dict[str, Any]) -> None:
    await plane.call("POST", "/api/v1/nodes", body)
    await plane.call("PATCH", f"/api/v1/nodes/{body['metadata']['name']}/status", {"status": body["status"]})
