"""`pilothouse up`: the gateway comes when it is wanted, splits and rolls without a lost request, and comes again."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.foundation.addresses import own_address
from pilothouse.foundation.tls import issue, make_ca
from pilothouse.platform.state import PartState, read_state, start_ticks
from support.platformkit import USERS, Platform, eventually, platform_of
from support.platformload import Load, configured, deployment, service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Object = dict[str, Any]
GROUP = "gateway.networking.k8s.io/v1"
PORT = 18070


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        yield made


def gateway(name: str, *ports: int) -> Object:
    listeners = [{"name": f"at-{port}", "port": port, "protocol": "HTTP"} for port in ports]
    spec = {"gatewayClassName": "pilothouse", "listeners": listeners}
    return {"apiVersion": GROUP, "kind": "Gateway", "metadata": {"name": name}, "spec": spec}


def route(name: str, parent: str, **weights: int) -> Object:
    backends = [{"name": each, "port": 8080, "weight": weight} for each, weight in weights.items()]
    spec = {"parentRefs": [{"name": parent}], "rules": [{"backendRefs": backends}]}
    return {"apiVersion": GROUP, "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec}


def apply(platform: Platform, *objects: Object) -> None:
    platform.kubectl("apply", "-f", "-", data=yaml.safe_dump_all(objects))


def custom(platform: Platform, kind: str, name: str) -> Object:
    found: Object = platform.call("GET", f"/apis/{GROUP}/namespaces/default/{kind}/{name}")
    return found


def part(platform: Platform) -> PartState:
    state = read_state(str(platform.data))
    assert state is not None
    return state.parts["gateway"]


def conditions(found: Object) -> dict[str, Object]:
    return {each["type"]: each for each in found.get("status", {}).get("conditions", ())}


def address_of(platform: Platform, name: str) -> str:
    """Wait until a gateway is programmed; return its address."""

    def programmed() -> bool:
        found = conditions(custom(platform, "gateways", name)).get("Programmed", {})
        return bool(found.get("status") == "True")

    eventually(programmed, lambda: (custom(platform, "gateways", name).get("status"), platform.logged()))
    address: str = custom(platform, "gateways", name)["status"]["addresses"][0]["value"]
    return address


def answers(address: str, port: int) -> bool:
    try:
        return versions(address, port, 1).total() == 1
    except (OSError, AssertionError, http.client.HTTPException):
        return False


def versions(address: str, port: int, times: int) -> Counter[str]:
    """Ask so many times over one connection; return which versions answered how often."""
    found: Counter[str] = Counter()
    with contextlib.closing(http.client.HTTPConnection(address, port, timeout=20)) as connection:
        for _ in range(times):
            connection.request("GET", "/")
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
            found[text.partition(" ")[0]] += 1
    return found


def test_nobody_wants_a_gateway_and_there_is_none(platform: Platform) -> None:
    assert platform.is_well()
    assert "gateway" not in platform.parts()
    assert part(platform) == PartState("idle", since=part(platform).since)
    shown = platform.kubectl("get", "gatewayclass,ingressclass", "-o", "name").splitlines()
    assert shown == [
        "gatewayclass.gateway.networking.k8s.io/pilothouse",
        "ingressclass.networking.k8s.io/pilothouse",
    ]
    assert platform.kubectl("explain", "gateway.spec.listeners").startswith("GROUP:")


def test_weights_hold_exactly_and_what_comes_later_is_found(platform: Platform) -> None:
    apply(platform, gateway("front", PORT), route("web", "front", stable=3, canary=1))
    address = address_of(platform, "front")
    assert ip_address(address) in ip_network(platform.slot.gateways)
    assert not answers(address, PORT)
    for number, name in enumerate(("stable", "canary"), 1):
        apply(platform, deployment(name, 1, configured(str(number))), service(name))
    for name in ("stable", "canary"):
        platform.until("Deployment", name, lambda it: it["status"].get("readyReplicas") == 1)
    eventually(lambda: len(versions_seen(address)) == 2, platform.logged)
    assert versions(address, PORT, 40) == {"1": 30, "2": 10}


def versions_seen(address: str) -> set[str]:
    try:
        return set(versions(address, PORT, 8))
    except (OSError, AssertionError, http.client.HTTPException):
        return set()


def test_a_rolling_restart_under_load_costs_no_request(platform: Platform) -> None:
    address = address_of(platform, "front")
    with Load(address, PORT) as load:
        eventually(lambda: load.count >= 100, lambda: load.failures)
        before = set(load.pods)
        platform.kubectl("rollout", "restart", "deployment/stable", "deployment/canary")
        for name in ("stable", "canary"):
            platform.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
        load.forget()
        eventually(lambda: load.count >= 100 and len(load.pods) == 2, lambda: (load.failures, load.pods))
    assert (load.failures, before & set(load.pods)) == ([], set())


def test_an_ingress_with_a_certificate(platform: Platform, tmp_path: Path) -> None:
    ca = make_ca("tests")
    pair = issue(ca, "web.example", hosts=("web.example",), server=True)
    (tmp_path / "ca.crt").write_bytes(ca.certificate)
    (tmp_path / "tls.crt").write_bytes(pair.certificate)
    (tmp_path / "tls.key").write_bytes(pair.key)
    platform.kubectl("create", "secret", "tls", "web", f"--cert={tmp_path}/tls.crt", f"--key={tmp_path}/tls.key")
    platform.kubectl(
        "create", "ingress", "web", "--rule=web.example/*=stable:8080,tls=web"
    )  # names no class: ours is the default
    found = platform.until("Ingress", "web", lambda it: it["status"]["loadBalancer"].get("ingress"))
    assert found["spec"]["ingressClassName"] == "pilothouse"
    (at,) = found["status"]["loadBalancer"]["ingress"]
    plain, secure = [each["port"] for each in at["ports"]] if "ports" in at else (80, 443)
    assert (plain, secure) == ((80, 443) if platform.as_root else tuple(ports_of_user(platform)))
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with (
        socket.create_connection((at["ip"], secure), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="web.example") as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    with contextlib.closing(http.client.HTTPConnection(at["ip"], plain, timeout=20)) as connection:
        connection.request("GET", "/", headers={"Host": "other.example"})
        assert connection.getresponse().status == 404


def ports_of_user(platform: Platform) -> list[int]:
    found: list[int] = json.loads(
        platform.run("-c", "from pilothouse.platform.gateway import ingress_ports; print([*ingress_ports()])")
    )
    return found


def test_it_comes_again_when_it_is_killed(platform: Platform) -> None:
    address = address_of(platform, "front")
    before = part(platform)
    children = [int(word) for word in Path(f"/proc/{before.pid}/task/{before.pid}/children").read_text().split()]
    assert children
    platform.kill("gateway")
    eventually(lambda: part(platform).restarts == before.restarts + 1 and answers(address, PORT), platform.logged)
    eventually(lambda: not any(start_ticks(pid) for pid in children), seconds=20)
    eventually(lambda: part(platform).state == "ready")
    assert versions(address, PORT, 8) == {"1": 6, "2": 2}


def test_what_it_does_is_shown_to_its_owner(platform: Platform) -> None:
    shown = platform.run("-m", "pilothouse", "gateway", "routes", "--data-dir", str(platform.data))
    assert "default/web" in shown
    command = [*platform.python, "-m", "pilothouse", "status", "--data-dir", str(platform.data), "-o", "json"]
    whole = subprocess.run(command, env=platform.environment, cwd="/", capture_output=True, check=False, timeout=60)
    (row,) = [each for each in json.loads(whole.stdout)["parts"] if each["name"] == "gateway"]
    assert (row["state"], row["restarts"]) == ("ready", 1)


def test_a_port_that_cannot_be_had_is_said_and_harms_nothing_else(platform: Platform) -> None:
    address = address_of(platform, "front")
    with socket.create_server((address, 0)) as other:
        taken = other.getsockname()[1]
        low = [] if platform.as_root or min(ports_of_user(platform)) < 1024 else [81]
        apply(platform, gateway("front", PORT, taken, *low))

        def refused() -> Object:
            found = custom(platform, "gateways", "front")["status"]["listeners"]
            return {each["name"]: conditions({"status": each}).get("Accepted", {}) for each in found}

        eventually(lambda: refused().get(f"at-{taken}", {}).get("status") == "False", refused)
        said = refused()
        assert said[f"at-{taken}"]["reason"] == "PortUnavailable"
        assert "another program listens there" in said[f"at-{taken}"]["message"]
        assert said[f"at-{PORT}"]["status"] == "True"
        for port in low:
            assert "ports below 1024 are root's" in said[f"at-{port}"]["message"]
        assert answers(address, PORT)


def test_without_it_there_is_none_and_with_it_again_it_serves_at_the_nodes_address(platform: Platform) -> None:
    platform.stop()
    platform.start("--without", "gateway")
    assert "gateway" not in platform.parts()
    assert not (platform.data / "run" / "gateway.sock").exists()
    state = read_state(str(platform.data))
    assert state is not None
    assert "gateway" not in state.parts
    platform.stop()
    if not platform.as_root:
        return
    with socket.create_server(("", 0)) as found:
        port = found.getsockname()[1]
    platform.gateways = ()
    platform.start()
    apply(platform, gateway("wide", port), route("wide", "wide", stable=1))
    assert address_of(platform, "wide") == own_address()
    eventually(lambda: answers(own_address(), port) and answers("127.0.0.1", port), platform.logged)
