"""Network policies between two machines of one network, each a network namespace, one of which has joined the other."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.netkit import NEEDS_NFT, NODE_ADDRESS, Network, network
from support.platformkit import Platform, eventually, platform_of
from support.platformload import PORT, configured, pod

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), NEEDS_NFT]

OTHER_ADDRESS = "192.168.77.2"
ASK = """
import sys, time, urllib.request
for _ in range(int(sys.argv[2])):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode(), flush=True)
        sys.exit(0)
    except OSError as error:
        print(error, flush=True)
        time.sleep(0.2)
sys.exit(1)
"""


class Joined:
    """The machine beside: the far end of this one's uplink, and the agent in it."""

    def __init__(self, platform: Platform, made: Network, directory: Path) -> None:
        self.data = directory / "data"
        self._log = directory / "log"
        self._namespace = made.namespace("beside")
        self._bridge = f"{platform.slot.bridge}b"
        _ip("netns", "add", self._namespace)
        made.pods["beside"] = OTHER_ADDRESS
        _ip("link", "set", "far", "netns", self._namespace)
        for line in ("lo up", "far up"):
            _ip("-n", self._namespace, "link", "set", *line.split())
        _ip("-n", self._namespace, "addr", "add", f"{OTHER_ADDRESS}/24", "dev", "far")
        _ip("-n", self._namespace, "route", "add", "default", "via", "192.168.77.254")
        token = platform.run("-m", "pilothouse", "token", "create", "--data-dir", str(platform.data)).split()[0]
        url = f"https://{NODE_ADDRESS}:{platform.slot.port}"
        options = {
            "--role": "agent",
            "--join": url,
            "--token": token,
            "--node-name": "node-b",
            "--bridge": self._bridge,
        }
        options |= {
            "--node-ip": OTHER_ADDRESS,
            "--data-dir": str(self.data),
            "--cluster-cidr": platform.slot.pods[True],
        }
        words = [word for pair in options.items() for word in pair]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._within, "-m", "pilothouse", "up", *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def _within(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self._namespace}", sys.executable]

    def logged(self) -> str:
        """Return what it has said."""
        return self._log.read_text(errors="replace")[-4000:]

    def end(self) -> None:
        """End it with its pods."""
        down = [*self._within, "-m", "pilothouse", "down", "--data-dir", str(self.data), "--timeout", "1s"]
        try:
            subprocess.run(down, check=True, capture_output=True, timeout=60)
        finally:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    directory = Path(tempfile.mkdtemp(prefix="phj"))
    directory.chmod(0o755)
    with (
        network() as made,
        platform_of("root", "--node-ip", NODE_ADDRESS, "--advertise-address", NODE_ADDRESS) as first,
        _joined(first, made, directory) as second,
    ):
        eventually(lambda: _is_ready(first, "node-b"), second.logged)
        yield first
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _joined(platform: Platform, made: Network, directory: Path) -> Iterator[Joined]:
    second = Joined(platform, made, directory)
    try:
        yield second
    finally:
        second.end()


def _is_ready(platform: Platform, name: str) -> bool:
    with contextlib.suppress(Exception):
        conditions = platform.get("Node", name)["status"].get("conditions", ())
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return False


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def asks(platform: Platform, name: str, node: str, url: str, *, times: int = 50, labels: Any = None) -> tuple[str, str]:
    """Return a pod's phase and what it was told last, when it has asked at a node."""
    main = {"name": "main", "image": "host", "command": ["python3", "-c", ASK, url, str(times)]}
    platform.create(pod(name, main, labels=labels, nodeName=node, restartPolicy="Never"))
    found = platform.until("Pod", name, lambda each: each["status"].get("phase") in {"Succeeded", "Failed"})
    log = platform.call("GET", f"{platform.path('Pod', name)}/log")
    return found["status"]["phase"], log.splitlines()[-1]


def ip_of(platform: Platform, name: str) -> str:
    return str(platform.get("Pod", name)["status"]["podIP"])


def test_policies_see_pods_of_the_other_machine_as_they_are(platform: Platform) -> None:
    platform.create(pod("guarded", configured(), labels={"app": "guarded"}, nodeName="node-b"))
    platform.until_running("guarded")
    allowed = {"from": [{"podSelector": {"matchLabels": {"may": "ask"}}}]}
    spec = {"podSelector": {"matchLabels": {"app": "guarded"}}, "policyTypes": ["Ingress"], "ingress": [allowed]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "guards"},
        "spec": spec,
    }
    platform.create(policy)
    url = f"http://{ip_of(platform, 'guarded')}:{PORT}/"
    phase, told = asks(platform, "may", "node-a", url, labels={"may": "ask"})
    assert (phase, told.split()[2]) == ("Succeeded", ip_of(platform, "may"))
    assert asks(platform, "may-not", "node-a", url, times=2)[0] == "Failed"
