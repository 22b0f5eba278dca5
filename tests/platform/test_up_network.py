"""`pilothouse up`: services and names as pods see them, ports of the node, affinity, policies, and balancers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from support.platformkit import USERS, Platform, eventually, platform_of
from support.platformload import PORT, Load, configured, deployment, pod, service, shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

OUTSIDE = "outside.example."
PACKAGES = "/mnt"
"""Where the client finds this environment's packages."""

# Asks the server of /etc/resolv.conf and prints the answers, one a line.
ASK = """
import sys, dns.resolver, dns.reversename
name, kind = sys.argv[1:]
asked = dns.reversename.from_address(name) if kind == "PTR" else name
resolver = dns.resolver.Resolver()
resolver.lifetime = 20
try:
    print(*sorted(str(each) for each in resolver.resolve(asked, kind, search=True)), sep="\\n")
except dns.resolver.NXDOMAIN:
    print("NXDOMAIN")
"""


class Upstream:
    """A name server outside of the cluster, which knows one name."""

    def __init__(self) -> None:
        self.address = f"127.53.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._serve, name="upstream")

    def __enter__(self) -> Self:
        self._socket.bind((self.address, 53))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (self.address, 53))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(4096)
            if not data:
                return
            query = dns.message.from_wire(data)
            answer = dns.message.make_response(query)
            asked = query.question[0]
            if asked.name.to_text() != OUTSIDE:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            elif asked.rdtype == dns.rdatatype.A:
                answer.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", "192.0.2.77"))
            self._socket.sendto(answer.to_wire(), client)


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(platform_of(request.param, starts=False))
        if made.as_root:  # with an /etc/resolv.conf of its own
            upstream = stack.enter_context(Upstream())
            own = tmp_path_factory.mktemp("upstream") / "resolv.conf"
            own.write_text(f"nameserver {upstream.address}\nsearch corp.example\n")
            over = f'mount --bind {own} /etc/resolv.conf && exec "$@"'
            made.before = ("unshare", "--mount", "--propagation", "private", "sh", "-c", over, "sh")
        made.start()
        made.create(deployment("web", 2, configured()), service("web"))
        made.create(service("web-set", clusterIP="None", selector={"app": "web"}))
        packages = str(Path(dns.message.__file__).parents[1])  # wherever the checkout is, also where pods see nothing
        volume = {"name": "packages", "hostPath": {"path": packages, "type": "Directory"}}
        mount = {"name": "packages", "mountPath": PACKAGES, "readOnly": True}
        more = {"volumes": [volume]} if made.as_root else {}
        client = shell("exec sleep 1000", volumeMounts=[mount] if made.as_root else [])
        made.create(pod("client", client, labels={"role": "client"}, **more))
        made.until("Deployment", "web", lambda it: it["status"].get("readyReplicas") == 2)
        made.until_running("client")
        yield made


def address_of(platform: Platform, name: str) -> str:
    address = platform.get("Service", name)["spec"]["clusterIP"]
    assert isinstance(address, str)
    return address


def run(platform: Platform, *command: str, pod: str = "client") -> str:
    return platform.kubectl("exec", pod, "--", *command)


def asked(platform: Platform, name: str, kind: str = "A") -> list[str]:
    """Ask for a name as a pod does."""
    return run(platform, "env", f"PYTHONPATH={PACKAGES}", "python3", "-c", ASK, name, kind).splitlines()


def fetched(url: str, seconds: float = 5) -> str:
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        text: bytes = answer.read()
    return text.decode()


def reaches(platform: Platform, host: str, port: int = PORT, *, pod: str = "client") -> bool:
    """Whether a pod gets an answer."""
    line = f"import urllib.request as u; print(u.urlopen('http://{host}:{port}/', timeout=2).status)"
    done = platform.whole("kubectl", "exec", pod, "--", "python3", "-c", line)
    return done.returncode == 0 and done.stdout.strip() == "200"


def needs_dns(platform: Platform) -> None:
    if not platform.as_root:
        pytest.skip("an ordinary user's pods do not find cluster DNS: port 53 is root's")


# Services


def test_a_service_spreads_its_connections_over_its_pods(platform: Platform) -> None:
    with Load(address_of(platform, "web"), PORT, kept=0, new=4) as load:
        eventually(lambda: len(load.pods) == 2 and min(load.pods.values()) >= 20, lambda: load.pods)
    assert load.failures == []
    assert reaches(platform, address_of(platform, "web"))


def test_variables_name_the_services_that_were_there_before(platform: Platform) -> None:
    assert run(platform, "sh", "-c", "echo $WEB_SERVICE_HOST $WEB_SERVICE_PORT_HTTP") == (
        f"{address_of(platform, 'web')} {PORT}"
    )


def test_a_port_of_the_node_leads_to_the_service(platform: Platform) -> None:
    platform.create(service("web-node", type="NodePort", selector={"app": "web"}))
    port = platform.get("Service", "web-node")["spec"]["ports"][0]["nodePort"]
    addresses = platform.get("Node", platform.node)["status"]["addresses"]
    host = next(each["address"] for each in addresses if each["type"] == "InternalIP")

    def answered(at: str) -> bool:
        try:
            return fetched(f"http://{at}:{port}/").startswith("1 ")
        except OSError:
            return False

    for at in (host, "127.0.0.1"):
        eventually(lambda at=at: answered(at))  # type: ignore[misc]


def test_a_client_stays_with_its_pod_where_it_is_to(platform: Platform) -> None:
    platform.create(service("web-sticky", sessionAffinity="ClientIP", selector={"app": "web"}))
    with Load(address_of(platform, "web-sticky"), PORT, kept=0, new=4) as load:
        eventually(lambda: load.count >= 60)
    assert (load.failures, len(load.pods)) == ([], 1)


def test_a_service_without_pods_refuses_at_once(platform: Platform) -> None:
    platform.create(service("nobody"))

    def refused() -> bool:
        try:
            socket.create_connection((address_of(platform, "nobody"), PORT), 2).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False

    eventually(refused)


def test_a_balancer_has_the_nodes_address(platform: Platform) -> None:
    platform.create(service("web-out", type="LoadBalancer", selector={"app": "web"}))
    found = platform.until("Service", "web-out", lambda it: it["status"].get("loadBalancer", {}).get("ingress"))
    addresses = platform.get("Node", platform.node)["status"]["addresses"]
    host = next(each["address"] for each in addresses if each["type"] == "InternalIP")
    assert [each["ip"] for each in found["status"]["loadBalancer"]["ingress"]] == [host]
    eventually(lambda: reaches(platform, host))


# Names


def test_services_have_names(platform: Platform) -> None:
    needs_dns(platform)
    address = address_of(platform, "web")
    for name in ("web", "web.default", "web.default.svc", "web.default.svc.cluster.local."):
        assert asked(platform, name) == [address]
    assert asked(platform, address, "PTR") == ["web.default.svc.cluster.local."]
    target = f"0 100 {PORT} web.default.svc.cluster.local."
    assert asked(platform, "_http._tcp.web.default.svc.cluster.local", "SRV") == [target]
    assert asked(platform, "nosuch.default.svc.cluster.local.") == ["NXDOMAIN"]


def test_headless_services_are_their_pods(platform: Platform) -> None:
    needs_dns(platform)
    pods = sorted(each["status"]["podIP"] for each in platform.items("Pod", "app=web"))
    assert asked(platform, "web-set") == pods
    targets = asked(platform, "_http._tcp.web-set", "SRV")
    names = sorted(each.split()[-1].partition(".")[0] for each in targets)
    assert names == sorted(each.replace(".", "-") for each in pods)


def test_external_names_lead_elsewhere(platform: Platform) -> None:
    needs_dns(platform)
    spec = {"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}
    platform.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alias"}, "spec": spec})
    eventually(lambda: asked(platform, "alias", "CNAME") == ["web.default.svc.cluster.local."])
    assert asked(platform, "alias") == [address_of(platform, "web")]


def test_pods_search_where_their_namespace_is(platform: Platform) -> None:
    needs_dns(platform)
    lines = run(platform, "cat", "/etc/resolv.conf").splitlines()
    assert f"nameserver {platform.dns}" in lines
    assert "options ndots:5" in lines
    assert "search default.svc.cluster.local svc.cluster.local cluster.local corp.example" in lines


def test_other_names_are_asked_of_the_machines_own_server(platform: Platform) -> None:
    needs_dns(platform)
    assert asked(platform, OUTSIDE) == ["192.0.2.77"]
    assert asked(platform, "nosuch.example.") == ["NXDOMAIN"]


# Policies


def policy(name: str, **spec: Any) -> dict[str, Any]:
    made = {"podSelector": {"matchLabels": {"app": "web"}}} | spec
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": made}


def test_a_policy_holds_or_says_that_it_does_not(platform: Platform) -> None:
    address = address_of(platform, "web")
    assert reaches(platform, address)
    platform.create(policy("closed", policyTypes=["Ingress"]))
    if not platform.as_root:
        assert "not enforced" in platform.until_event("closed", "NetworkPolicyNotEnforced")["message"]
        assert reaches(platform, address)
        return
    eventually(lambda: not reaches(platform, address))
    peer = [{"podSelector": {"matchLabels": {"role": "client"}}}]
    platform.create(policy("opened", ingress=[{"from": peer, "ports": [{"port": "http"}]}]))
    platform.create(pod("stranger", shell("exec sleep 1000")))
    platform.until_running("stranger")
    eventually(lambda: reaches(platform, address))
    assert not reaches(platform, address, pod="stranger")
    platform.delete("NetworkPolicy", "closed")
    platform.delete("NetworkPolicy", "opened")
    eventually(lambda: reaches(platform, address, pod="stranger"))
