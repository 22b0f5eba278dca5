"""`pilothouse up --role agent --join`: a node in another network namespace; pods of both reach each other."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.platformkit import CLEAR, PATIENCE, USERS, Platform, eventually, is_ready, platform_of
from support.platformload import PORT, configured, pod, service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = USERS[0]
FETCH = "import sys, urllib.request as u; print(u.urlopen(f'http://{sys.argv[1]}/', timeout=2).read().decode())"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


class Cable:
    """A network namespace that a link leads to."""

    def __init__(self, number: int) -> None:
        self.name = f"phe{number}"
        self.here, self.there = f"10.112.{number}.1", f"10.112.{number}.2"
        self.link = f"phv{number}"

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command that runs there begins with."""
        return ("ip", "netns", "exec", self.name)

    def lay(self) -> None:
        """Make namespace and link."""
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "address", "add", f"{self.here}/24", "dev", self.link)
        run("ip", "link", "set", self.link, "up")
        for line in (f"address add {self.there}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", self.name, *line.split())
        run("ip", "-n", self.name, "route", "add", "default", "via", self.here)
        run(*self.inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def cut(self) -> None:
        """Take it away."""
        for command in (("link", "delete", self.link), ("netns", "delete", self.name)):
            subprocess.run(["ip", *command], check=False, capture_output=True)


@contextmanager
def joined(platform: Platform, cable: Cable) -> Iterator[subprocess.Popen[bytes]]:
    """Run an agent in the namespace at the other end, as the node `node-b`."""
    data = platform.directory / "joined"
    token = platform.run("-m", "pilothouse", "token", "create", "--data-dir", str(platform.data)).split()[0]
    options = {
        "--role": "agent",
        "--join": f"https://{cable.here}:{platform.slot.port}",
        "--data-dir": str(data),
        "--node-name": "node-b",
        "--bridge": f"{platform.slot.bridge}b",
        "--cluster-cidr": platform.slot.pods[True],
    }
    words = [word for pair in options.items() for word in pair]
    log = platform.directory / "joined.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*cable.inside, *platform.python, "-m", "pilothouse", "up", *words],
            stdout=file,
            stderr=file,
            env=platform.environment | {"PILOTHOUSE_TOKEN": token},
        )
    try:
        eventually(lambda: is_node_ready(platform, "node-b"), lambda: log.read_text()[-4000:])
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        plan = data / "node" / "plan.json"
        if plan.exists():
            run(*cable.inside, *platform.python, "-c", CLEAR, str(plan))
            assert options["--bridge"] not in run("ip", "-n", cable.name, "link")
            assert not run(*cable.inside, "nft", "list", "tables")
            assert "proto" not in run("ip", "-n", cable.name, "route").replace("proto kernel", "")


def is_node_ready(platform: Platform, name: str) -> bool:
    with contextlib.suppress(Exception):
        return is_ready(platform.get("Node", name))
    return False


@pytest.fixture(scope="module", params=[ROOT])
def two(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param, starts=False) as platform:
        cable = Cable(platform.slot.number)
        cable.lay()
        try:
            platform.start("--node-ip", cable.here, "--tls-san", cable.here)
            with joined(platform, cable):
                for node in ("node-a", "node-b"):
                    chosen = {"kubernetes.io/hostname": node}
                    labels = {"app": "both"}
                    platform.create(pod(f"on-{node}", configured(), labels=labels, nodeSelector=chosen))
                platform.create(service("both"))
                for node in ("node-a", "node-b"):
                    platform.until_running(f"on-{node}")
                yield platform
                for node in ("node-a", "node-b"):
                    platform.delete("Pod", f"on-{node}")
                    platform.until_gone("Pod", f"on-{node}")
        finally:
            cable.cut()


def fetched(platform: Platform, pod: str, host: str) -> str:
    done = platform.whole("kubectl", "exec", pod, "--", "python3", "-c", FETCH, f"{host}:{PORT}")
    return done.stdout.strip()


def test_each_node_has_a_part_of_the_pods_network(two: Platform) -> None:
    parts = {each["metadata"]["name"]: each["spec"]["podCIDR"] for each in two.items("Node")}
    pods = {each["metadata"]["name"]: each["status"] for each in two.items("Pod")}
    assert len(set(parts.values())) == 2
    for node, part in parts.items():
        assert pods[f"on-{node}"]["podIP"].rpartition(".")[0] == part.rpartition(".")[0]
    assert pods["on-node-a"]["hostIP"] != pods["on-node-b"]["hostIP"]


@pytest.mark.parametrize(("from_", "to"), [("node-a", "node-b"), ("node-b", "node-a")])
def test_pods_reach_each_other_by_their_own_addresses(two: Platform, from_: str, to: str) -> None:
    host = two.get("Pod", f"on-{to}")["status"]["podIP"]
    own = two.get("Pod", f"on-{from_}")["status"]["podIP"]
    assert fetched(two, f"on-{from_}", host) == f"1 on-{to} {own}"


@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_services_and_names_lead_to_the_pods_of_both(two: Platform, node: str) -> None:
    wanted = {"on-node-a", "on-node-b"}
    for host in (two.get("Service", "both")["spec"]["clusterIP"], "both.default.svc"):
        seen: set[str] = set()

        def both(host: str = host, seen: set[str] = seen) -> bool:
            seen.update(fetched(two, f"on-{node}", host).split()[1:2])
            return seen == wanted

        eventually(both, lambda seen=seen: seen)  # type: ignore[misc]


def test_a_joined_nodes_certificate_was_asked_for_and_its_streams_work(two: Platform) -> None:
    assert two.kubectl("exec", "on-node-b", "--", "hostname") == "on-node-b"
    requests = [each for each in two.items("CertificateSigningRequest") if "node-b" in str(each["spec"])]
    signers = {each["spec"]["signerName"] for each in requests}
    assert "kubernetes.io/kubelet-serving" in signers
    assert all(each["status"].get("certificate") for each in requests)
