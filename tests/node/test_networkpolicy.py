"""What network policies allow: our rules against a slow reading of the API's words, and then on a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import selectors
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import Event, Namespace, NetworkPolicy, Pod, from_dict
from pilothouse.node.services.nft import Nft, set_sysctl
from pilothouse.node.services.policies import plan_policy, pod_facts
from pilothouse.node.services.policing import REASON, NetworkPolicies, PolicyState
from pilothouse.node.services.policyrules import compile_groups, compile_policy, groups_of, new_policy_ruleset
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from support.netkit import NEEDS_NFT, Network, network
from support.policykit import NAMESPACES, World, allowed, policy, run_rules

OUTSIDE = ("10.99.0.50", "192.0.2.1")
PLACES = [("TCP", 8080), ("TCP", 9090), ("UDP", 8080), ("SCTP", 8080)]

labels = st.sampled_from([{}, {"app": "web"}, {"app": "db"}, {"tier": "front"}])
expressions = st.sampled_from(
    [
        {"key": "app", "operator": "In", "values": ["web", "db"]},
        {"key": "app", "operator": "NotIn", "values": ["web"]},
        {"key": "tier", "operator": "Exists"},
        {"key": "app", "operator": "DoesNotExist"},
    ]
)
selectors_of_pods = st.one_of(
    labels.map(lambda found: {"matchLabels": found}), expressions.map(lambda found: {"matchExpressions": [found]})
)
spaces = st.sampled_from(
    [{}, {"matchLabels": {"team": "a"}}, {"matchLabels": {"team": "b"}}, {"matchLabels": {"no": "one"}}]
)
blocks = st.sampled_from(
    [
        {"cidr": "0.0.0.0/0"},
        {"cidr": "10.99.0.0/28", "except": ["10.99.0.12/32"]},
        {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.99.0.0/24"]},
        {"cidr": "192.0.2.0/24"},
    ]
)
peers = st.one_of(
    st.fixed_dictionaries({"podSelector": selectors_of_pods}, optional={"namespaceSelector": spaces}),
    st.fixed_dictionaries({"namespaceSelector": spaces}),
    st.fixed_dictionaries({"ipBlock": blocks}),
)
ports = st.sampled_from(
    [
        {"port": 8080},
        {"port": "http"},
        {"port": "dns", "protocol": "UDP"},
        {"port": "http", "protocol": "TCP"},
        {"protocol": "UDP"},
        {"protocol": "SCTP", "port": 8080},
        {"port": 8000, "endPort": 9000},
        {"port": 8080, "endPort": 9090, "protocol": "TCP"},
    ]
)


def rules(which: str) -> st.SearchStrategy[Any]:
    return st.lists(
        st.fixed_dictionaries({}, optional={which: st.lists(peers, max_size=2), "ports": st.lists(ports, max_size=3)}),
        max_size=2,
    )


policies = st.builds(
    lambda namespace, selector, spec: policy(namespace, selector, **spec),
    st.sampled_from(sorted(NAMESPACES)),
    selectors_of_pods,
    st.fixed_dictionaries(
        {},
        optional={
            "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
            "ingress": rules("from"),
            "egress": rules("to"),
        },
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(policies, max_size=4), st.booleans())
def test_our_rules_say_what_the_words_say(found: list[dict[str, Any]], far: bool) -> None:
    world = World.of(found, far=far)
    made = world.ruleset()
    everybody = [*(pod.address for pod in world.pods), *OUTSIDE]
    for source, target in itertools.product(everybody, repeat=2):
        for protocol, port in PLACES:
            wanted = allowed(world, source, target, protocol, port)
            assert run_rules(made, source, target, protocol, port) == wanted, (source, target, protocol, port)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.one_of(st.none(), policies)), max_size=6), st.sets(st.integers(0, 3)))
def test_changes_in_steps_lead_where_all_at_once_does(  # noqa: C901  # the steps, one after the other
    steps: list[tuple[int, dict[str, Any] | None]], gone: set[int]
) -> None:
    world = World.of([])
    state = PolicyState("here")
    made = new_policy_ruleset(4, "t")

    def apply() -> None:
        for key, plan in state.changes().items():
            made.put(key, None if plan is None else compile_policy(key, plan, 4))
        made.put("groups", compile_groups(state.plans, groups_of(state.plans), 4))

    for name, found in NAMESPACES.items():
        state.set_namespace(name, found)
    for pod in world.pods:
        state.set_pod(f"{pod.namespace}/{pod.name}", world.typed(pod))
        apply()
    last: dict[str, dict[str, Any]] = {}
    for number, body in steps:
        for key in [key for key in last if key.endswith(f"/p{number}")]:
            del last[key]
            state.set_policy(key, None)
        if body is not None:
            last[f"{body['metadata']['namespace']}/p{number}"] = body
            state.set_policy(f"{body['metadata']['namespace']}/p{number}", from_dict(body, NetworkPolicy))
        apply()
    for at in gone:
        state.set_pod(f"{world.pods[at].namespace}/{world.pods[at].name}", None)
    apply()
    left = World(tuple(pod for at, pod in enumerate(world.pods) if at not in gone), tuple(last.values()))
    everybody = [pod.address for pod in world.pods]
    for source, target in itertools.product(everybody, repeat=2):
        for protocol, port in PLACES:
            wanted = allowed(left, source, target, protocol, port)
            assert run_rules(made, source, target, protocol, port) == wanted


def test_pods_of_the_machines_network_and_ended_ones_have_no_address() -> None:
    for spec, status in (({"hostNetwork": True}, {"phase": "Running"}), ({}, {"phase": "Succeeded"})):
        body = {"metadata": {"name": "p", "namespace": "x"}, "spec": spec, "status": {"podIP": "10.0.0.1"} | status}
        assert pod_facts(from_dict(body, Pod), "here").addresses == ()


def test_a_policy_without_a_pod_here_costs_nothing() -> None:
    world = World.of([])
    pods = {"x": [pod_facts(world.typed(pod), "elsewhere") for pod in world.pods if pod.namespace == "x"]}
    found = from_dict(policy(ingress=[{"from": [{"namespaceSelector": {}}]}]), NetworkPolicy)
    plan = plan_policy(found, pods, NAMESPACES)
    assert not plan.selected
    assert not plan.directions


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made, contextlib.ExitStack() as stack:
        for pod in World.of([]).pods:
            made.pod(pod.name, pod.address)
            for port in (8080, 9090):
                server = functools.partial(socket.create_server, ("", port), backlog=50)
                stack.enter_context(made.within(pod.name, server))
        assert not set_sysctl("net/bridge/bridge-nf-call-iptables", "1")
        yield made


def reached(net: Network, world: World) -> set[tuple[str, str, int]]:
    """Return who reaches whom over TCP; each pod tries all at once, as silence is a no."""
    found = set()
    for source in world.pods:
        tries = [(target, port) for target in world.pods if target is not source for port in (8080, 9090)]
        for target, port in net.within(source.name, functools.partial(_connected, tries)):
            found.add((source.name, target, port))
    return found


def _connected(tries: list[tuple[Any, int]]) -> list[tuple[str, int]]:
    found = []
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for target, port in tries:
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex((target.address, port))
            selector.register(sock, selectors.EVENT_WRITE, (target.name, port))
        until = time.monotonic() + 0.25
        while (left := until - time.monotonic()) > 0 and selector.get_map():
            for key, _ in selector.select(left):
                selector.unregister(key.fileobj)
                assert isinstance(key.fileobj, socket.socket)
                if not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    found.append(key.data)
    return found


SCENES: list[list[dict[str, Any]]] = [
    [],
    [policy()],
    [policy("y", policyTypes=["Egress"])],
    [
        policy(
            selector={"matchLabels": {"app": "db"}},
            ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}],
        ),
        policy(
            "y", egress=[{"to": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}], "ports": [{"port": "http"}]}]
        ),
    ],
    [
        policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.99.0.0/24", "except": ["10.99.0.14/32"]}}]}]),
        policy("y", ingress=[{"ports": [{"port": 9000, "endPort": 9999}]}]),
    ],
    [
        policy(
            ingress=[
                {
                    "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}],
                    "ports": [{"port": "http"}],
                }
            ]
        )
    ],
]


@NEEDS_NFT
@pytest.mark.parametrize("scene", range(len(SCENES)))
async def test_the_kernel_lets_through_what_the_words_allow(net: Network, scene: int) -> None:
    world = World.of(SCENES[scene])
    await Nft().apply(world.ruleset().full())
    wanted = {
        (source.name, target.name, port)
        for source in world.pods
        for target in world.pods
        for port in (8080, 9090)
        if source is not target and allowed(world, source.address, target.address, "TCP", port)
    }
    assert reached(net, world) == wanted
    # What the node itself asks, as probes do, always comes through.
    for pod in world.pods:
        socket.create_connection((pod.address, 8080), timeout=2).close()


@NEEDS_NFT
async def test_policies_follow_the_api_and_leave_nothing(net: Network) -> None:
    world = World.of([])
    async with (
        ControlPlane(lifecycle=False) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        for name, found in NAMESPACES.items():
            await client.create(from_dict({"metadata": {"name": name, "labels": found}}, Namespace))
            account = {"metadata": {"name": "default"}}
            await plane.call("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
        for pod in world.pods:
            await _put_pod(plane, pod)
        manager = Manager(client, metrics=Metrics())
        enforcer = NetworkPolicies(manager, "here")
        async with manager:
            await enforcer.start()
            await enforcer.wait_synced()
            assert len(reached(net, world)) == 24
            await client.create(from_dict(policy(), NetworkPolicy))
            for _ in range(100):
                await asyncio.sleep(0.02)
                if "10.99.0.11" in _listed():
                    break
            assert not [each for each in reached(net, world) if each[1] in {"a", "b"}]
            await client.delete(NetworkPolicy, "p", "x")
            for _ in range(100):
                await asyncio.sleep(0.02)
                if "10.99.0.11" not in _listed():
                    break
            assert len(reached(net, world)) == 24
            assert enforcer.problems() == []
            await enforcer.stop()
    assert "pilothouse" not in _listed()


def _listed() -> str:
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


async def _put_pod(plane: ControlPlane, pod: Any) -> None:
    labels = pod.labels
    body = {
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": labels},
        "spec": {"nodeName": "here", "containers": [{"name": "c", "image": "host"}]},
    }
    await plane.call("POST", f"/api/v1/namespaces/{pod.namespace}/pods", body)
    status = {"status": {"phase": "Running", "podIP": pod.address, "podIPs": [{"ip": pod.address}]}}
    await plane.call("PATCH", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/status", status)


async def test_where_nothing_can_be_enforced_the_policy_says_so() -> None:
    async with (
        ControlPlane(lifecycle=False) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        manager = Manager(client, metrics=Metrics())
        enforcer = NetworkPolicies(manager, "here", unable="only root may change the rules of nftables")
        await client.create(from_dict(policy("default"), NetworkPolicy))
        async with manager:
            await enforcer.start()
            await enforcer.wait_synced()
            assert "not enforced" in enforcer.problems()[0]
            for _ in range(200):
                events = [each async for each in client.list(Event, "default")]
                if events:
                    break
                await asyncio.sleep(0.02)
            await enforcer.stop()
    assert [(each.type, each.reason) for each in events] == [("Warning", REASON)]
