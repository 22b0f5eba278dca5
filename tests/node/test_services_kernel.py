"""Services by nftables, in a network namespace: connections from pods and from the node really go where they should."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from pilothouse.node.services.kernel import KernelBackend
from pilothouse.node.services.nft import NftError
from pilothouse.node.services.servicerules import ProxyNetwork
from support.netkit import BRIDGE, NEEDS_NFT, NODE_ADDRESS, Network, echo_tcp, echo_udp, network
from support.servicekit import Board, endpoint, service, slice_of

pytestmark = NEEDS_NFT

NET = ProxyNetwork(pod_cidrs=("10.99.0.0/24",), bridge=BRIDGE, is_localhost=True)
A, B, CLIENT = "10.99.0.11", "10.99.0.12", "10.99.0.20"


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made, contextlib.ExitStack() as stack:
        for name, address in (("a", A), ("b", B), ("client", CLIENT)):
            made.pod(name, address)
        for name in ("a", "b"):
            stack.enter_context(echo_tcp(made.within(name, lambda: socket.create_server(("", 8080))), name))
            stack.enter_context(echo_udp(made.within(name, _udp), name))
        yield made


@pytest.fixture
async def backend(net: Network) -> AsyncIterator[KernelBackend]:
    made = KernelBackend(network=NET, families=(4,))
    await made.start()
    yield made
    await made.stop()
    assert "pilothouse" not in _nft("list", "ruleset")


def _udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", 8080))
    return sock


def _ip(lines: str, *words: str) -> None:
    subprocess.run(["ip", *words, "-batch", "-"], input=lines.encode(), check=True)


def _nft(*words: str) -> str:
    return subprocess.run(["nft", *words], check=True, capture_output=True, text=True).stdout


def ask(address: str, port: int = 80) -> tuple[str, str]:
    """Return who answered, and what address it saw."""
    with socket.create_connection((address, port), timeout=5) as connection:
        name, seen = connection.makefile().readline().split()
    return name, seen


def ask_udp(address: str, port: int, sock: socket.socket) -> str:
    sock.settimeout(2)
    sock.sendto(b"?", (address, port))
    return sock.recv(100).decode().split()[0]


async def test_pods_and_the_node_reach_a_cluster_address(net: Network, backend: KernelBackend) -> None:
    board = Board()
    await backend.apply(board.put(service(), endpoint(A), endpoint(B)))
    seen = {net.within("client", lambda: ask("10.96.0.10")) for _ in range(30)}
    assert seen == {("a", CLIENT), ("b", CLIENT)}
    assert {ask("10.96.0.10")[0] for _ in range(20)} == {"a", "b"}
    assert backend.problems() == [] or "conntrack" in backend.problems()[0]


async def test_many_endpoints_all_get_their_share(net: Network, backend: KernelBackend) -> None:
    addresses = [f"10.99.0.{each}" for each in range(30, 42)]
    lines = "".join(f"addr add {each}/24 dev eth0\n" for each in addresses)
    _ip(lines, "-n", net.namespace("b"))
    board = Board()
    for wanted in (service(), service(sessionAffinity="ClientIP")):
        await backend.apply(board.put(wanted, *(endpoint(each) for each in addresses)))
        peers = {net.within("client", _peer) for _ in range(5)}
        assert peers <= {"b"}
    few = board.put(service(), endpoint(A), endpoint(B), endpoint(addresses[0]))
    await backend.apply(few)
    names = [name for _ in range(6) for name in net.within("client", lambda: [ask("10.96.0.10")[0] for _ in range(50)])]
    assert 60 < names.count("a") < 140  # a third of 300


def _peer() -> str:
    return ask("10.96.0.10")[0]


async def test_the_other_family(net: Network) -> None:
    made = KernelBackend(network=ProxyNetwork(bridge=BRIDGE), families=(6,))
    await made.start()
    lines = f"addr add fd99::1/64 dev {BRIDGE} nodad\nroute add fd96::/64 dev {BRIDGE}\n"
    _ip(lines, "-6")
    for name, address in (("a", "fd99::11"), ("b", "fd99::12")):
        _ip(f"addr add {address}/64 dev eth0 nodad\n", "-n", net.namespace(name))
    listener = net.within("a", lambda: socket.create_server(("fd99::11", 8081), family=socket.AF_INET6))
    board = Board()
    wanted = service("six", "fd96::a")
    board.set_service("default/six", wanted)
    ports = [{"name": "", "port": 8081, "protocol": "TCP"}]
    board.set_slice("default/six-1", slice_of("six", [endpoint("fd99::11")], ports=ports, family=6))
    with echo_tcp(listener, "a"):
        await made.apply(board.changes())
        assert ask("fd96::a")[0] == "a"
        await made.apply(board.remove("six"))
        await made.stop()


async def test_a_pod_reaches_itself_by_its_service(net: Network, backend: KernelBackend) -> None:
    await backend.apply(Board().put(service(), endpoint(A)))
    name, seen = net.within("a", lambda: ask("10.96.0.10"))
    assert name == "a"
    assert seen == "10.99.0.1"  # rewritten: a pod does not take packets from itself


async def test_endpoints_follow_and_none_is_refused_at_once(net: Network, backend: KernelBackend) -> None:
    board = Board()
    await backend.apply(board.put(service(), endpoint(A)))
    assert net.within("client", lambda: ask("10.96.0.10")[0]) == "a"
    await backend.apply(board.put(service(), endpoint(B)))
    assert {net.within("client", lambda: ask("10.96.0.10")[0]) for _ in range(5)} == {"b"}
    await backend.apply(board.put(service()))
    for where in ("client", ""):
        started = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            net.within(where, lambda: ask("10.96.0.10")) if where else ask("10.96.0.10")
        assert time.monotonic() - started < 2.5  # not a timeout of 5 s
    await backend.apply(board.put(service(), endpoint(B)))
    assert net.within("client", lambda: ask("10.96.0.10")[0]) == "b"


async def test_a_port_that_no_service_has_is_refused(net: Network, backend: KernelBackend) -> None:
    await backend.apply(Board().put(service(), endpoint(A)))
    with pytest.raises(ConnectionRefusedError):
        net.within("client", lambda: ask("10.96.0.10", 81))
    with pytest.raises(ConnectionRefusedError):
        ask("10.96.0.10", 81)


async def test_node_ports_external_and_balancers_addresses(net: Network, backend: KernelBackend) -> None:
    wanted = service(
        type="LoadBalancer",
        ports=[{"port": 80, "nodePort": 30_080, "protocol": "TCP"}],
        externalIPs=["192.0.2.77"],
        loadBalancerSourceRanges=["10.99.0.20/32"],
        status={"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}},
    )
    await backend.apply(Board().put(wanted, endpoint(A)))
    for address, port in ((NODE_ADDRESS, 30_080), ("10.99.0.1", 30_080), ("192.0.2.77", 80), ("198.51.100.7", 80)):
        assert net.within("client", functools.partial(ask, address, port))[0] == "a"
    assert ask("127.0.0.1", 30_080)[0] == "a"
    assert ask(NODE_ADDRESS, 30_080)[0] == "a"
    # Who is not within the balancer's ranges gets no answer there.
    with pytest.raises(TimeoutError):
        net.within("b", lambda: socket.create_connection(("198.51.100.7", 80), timeout=0.3))
    assert net.within("b", lambda: ask("192.0.2.77"))[0] == "a"


async def test_clients_stay_with_their_endpoint(net: Network, backend: KernelBackend) -> None:
    board = Board()
    sticky = service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 600}})
    await backend.apply(board.put(sticky, endpoint(A), endpoint(B)))
    first = net.within("client", lambda: ask("10.96.0.10")[0])
    assert {net.within("client", lambda: ask("10.96.0.10")[0]) for _ in range(20)} == {first}
    other = B if first == "a" else A
    await backend.apply(board.put(sticky, endpoint(other)))
    moved = net.within("client", lambda: ask("10.96.0.10")[0])
    assert moved != first
    await backend.apply(board.put(sticky, endpoint(A), endpoint(B)))
    assert {net.within("client", lambda: ask("10.96.0.10")[0]) for _ in range(20)} == {moved}


async def test_local_policies_keep_to_this_node(net: Network, backend: KernelBackend) -> None:
    board = Board()
    wanted = service(
        type="NodePort",
        ports=[{"port": 80, "nodePort": 30_080, "protocol": "TCP"}],
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Local",
    )
    await backend.apply(board.put(wanted, endpoint(A), endpoint("10.99.0.99", "elsewhere")))
    assert {net.within("client", lambda: ask("10.96.0.10")) for _ in range(10)} == {("a", CLIENT)}
    assert {net.within("client", lambda: ask(NODE_ADDRESS, 30_080)) for _ in range(10)} == {("a", CLIENT)}
    await backend.apply(board.put(wanted, endpoint("10.99.0.99", "elsewhere")))
    for address, port in (("10.96.0.10", 80), (NODE_ADDRESS, 30_080)):
        with pytest.raises(TimeoutError):
            net.within("client", functools.partial(socket.create_connection, (address, port), timeout=0.3))


async def test_udp_flows_leave_an_endpoint_that_is_gone(net: Network, backend: KernelBackend) -> None:
    board = Board()
    wanted = service(ports=[{"port": 53, "protocol": "UDP"}])
    ports = [{"name": "", "port": 8080, "protocol": "UDP"}]
    await backend.apply(board.put(wanted, endpoint(A), ports=ports))
    sock = net.within("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with sock:
        assert ask_udp("10.96.0.10", 53, sock) == "a"
        await backend.apply(board.put(wanted, endpoint(B), ports=ports))
        if any("conntrack" in each for each in backend.problems()):
            pytest.skip("there is no program conntrack (package conntrack)")
        assert ask_udp("10.96.0.10", 53, sock) == "b"  # the same socket


async def test_many_services_are_one_transaction_and_a_change_is_small(net: Network, backend: KernelBackend) -> None:
    board = Board()
    for number in range(1_000):
        found = service(f"s{number}", f"10.96.{1 + number // 250}.{1 + number % 250}")
        board.set_service(f"default/s{number}", found)
    await backend.apply(board.changes())
    changes = board.put(service("s7", "10.96.1.8"), endpoint(A), endpoint(B))
    scripts: list[str] = []
    apply = backend._nft.apply

    async def spy(script: str) -> None:
        scripts.append(script)
        await apply(script)

    backend._nft.apply = spy  # type: ignore[method-assign]
    await backend.apply(changes)
    assert len(scripts) == 1
    assert len(scripts[0].splitlines()) < 10
    assert net.within("client", lambda: ask("10.96.1.8")[0]) in {"a", "b"}


async def test_what_is_applied_anew_is_what_was_applied_in_steps(net: Network, backend: KernelBackend) -> None:
    board = Board()
    sticky = service("sticky", "10.96.0.11", sessionAffinity="ClientIP")
    for changes in (
        board.put(service(), endpoint(A)),
        board.put(sticky, endpoint(A), endpoint(B)),
        board.put(service(type="NodePort", ports=[{"port": 80, "nodePort": 30_001}]), endpoint(A), endpoint(B)),
        board.put(sticky, endpoint(B)),
        board.put(service("gone", "10.96.0.12"), endpoint(B)),
        board.remove("gone"),
    ):
        await backend.apply(changes)
    stepwise = sorted(_nft("-s", "list", "table", "ip", "pilothouse-services").split("\n"))
    backend._is_whole = False
    await backend.apply({})
    assert sorted(_nft("-s", "list", "table", "ip", "pilothouse-services").split("\n")) == stepwise


async def test_rules_that_somebody_took_away_come_again(net: Network, backend: KernelBackend) -> None:
    board = Board()
    await backend.apply(board.put(service(), endpoint(A)))
    assert await backend.check()
    _nft("flush", "ruleset")
    assert not await backend.check()
    await backend.apply({})
    assert net.within("client", lambda: ask("10.96.0.10")[0]) == "a"
    await asyncio.sleep(0)


async def test_a_new_run_takes_over_what_a_killed_one_left(net: Network, backend: KernelBackend) -> None:
    await backend.apply(Board().put(service("old", "10.96.0.20"), endpoint(A)))
    again = KernelBackend(network=NET, families=(4,))  # the first one was killed: it never stopped
    await again.start()
    assert net.within("client", lambda: ask("10.96.0.20")[0]) == "a"  # carried until the new run knows better
    await again.apply(Board().put(service(), endpoint(B)))
    assert net.within("client", lambda: ask("10.96.0.10")[0]) == "b"
    assert "10.96.0.20" not in _nft("list", "table", "ip", "pilothouse-services")


async def test_a_script_that_is_refused_changes_nothing(net: Network, backend: KernelBackend) -> None:
    board = Board()
    await backend.apply(board.put(service(), endpoint(A)))
    before = _nft("list", "table", "ip", "pilothouse-services")
    with pytest.raises(NftError, match="Error"):
        await backend._nft.apply("flush chain ip pilothouse-services services\nadd rule ip pilothouse-services no x\n")
    assert _nft("list", "table", "ip", "pilothouse-services") == before
    assert net.within("client", lambda: ask("10.96.0.10")[0]) == "a"
