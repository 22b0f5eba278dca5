"""`pilothouse up` for tests: one of many on a machine, as root or as a user, and all of it gone at the end."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import ipaddress
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import pytest

from pilothouse.kinds.registry import builtin
from pilothouse.node.process.cgroups import detect
from pilothouse.node.process.machine import capabilities_of_this_machine
from pilothouse.platform.state import is_process, read_state
from support.nodekit import user_python

__all__ = ["CLEAR", "PATIENCE", "USERS", "Platform", "Refused", "best_user", "eventually", "is_ready", "platform_of"]

Object = dict[str, Any]
T = TypeVar("T")
PATIENCE: Final = float(os.environ.get("PLATFORM_TEST_PATIENCE", "60"))
"""Seconds that something which has to come about may take on a machine that is busy with other tests."""
_TOKEN = "administrator-of-a-test"
_USER = 65534
_CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"

_is_root = capabilities_of_this_machine().mode == "root"
USERS = [
    pytest.param("root", marks=pytest.mark.skipif(not _is_root, reason="wants root with namespaces and networks")),
    "user",
]
"""Who runs the platform: parameters for fixtures."""


def best_user() -> str:
    """Return who runs a platform where one of both is enough."""
    return "root" if _is_root else "user"


class Refused(Exception):
    """The server refused a request; `status` is its code and `body` what it said."""

    def __init__(self, method: str, path: str, status: int, body: Any) -> None:
        super().__init__(f"{method} {path}: {status} {body}")
        self.status = status
        self.body = body


def eventually(true: Callable[[], T], shown: Callable[[], object] = lambda: "", seconds: float = PATIENCE) -> T:
    """Wait until something is so and return it; fail after a long time with what `shown` says."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, str(shown()) or "it never came about"
        time.sleep(0.05)
    return found


class Slot(NamedTuple):
    """What a platform has for itself on this machine, by its number."""

    number: int

    @property
    def bridge(self) -> str:
        """The name of bridge, tables and control groups."""
        return f"phe{self.number}"

    @property
    def port(self) -> int:
        """Where the API is served; the same over restarts."""
        return 18_000 + self.number

    @property
    def pods(self) -> dict[bool, str]:
        """Addresses of pods, for root and for a user."""
        return {
            True: f"10.{110 + self.number // 64}.{self.number % 64 * 4}.0/22",
            False: f"127.{65 + self.number}.0.0/16",
        }

    @property
    def services(self) -> dict[bool, str]:
        """Addresses of services, for root and for a user."""
        return {True: f"10.111.{self.number}.0/24", False: f"127.{160 + self.number}.0.0/16"}

    @property
    def gateways(self) -> str:
        """Addresses of gateways, for root as well: ports of all addresses are those of all tests."""
        return f"127.{129 + self.number // 4}.{self.number % 4 * 64}.0/26"

    @property
    def node_ports(self) -> str:
        """Ports of services at nodes."""
        return f"{20_000 + self.number * 20}-{20_019 + self.number * 20}"


@contextmanager
def _slot() -> Iterator[Slot]:
    """Take a number that no other test on this machine has."""
    locks = Path(tempfile.gettempdir()) / f"pilothouse-tests-{os.geteuid()}"
    locks.mkdir(exist_ok=True)
    for number in range(64):
        found = Slot(number)
        with (locks / str(number)).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            if Path(f"/sys/class/net/{found.bridge}").exists() or not _is_free(found.port):
                continue  # left by tests that were killed
            yield found
            return
    pytest.fail("all numbers of platforms are taken")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            tried.bind(("0.0.0.0", port))
            return True
    return False


class Platform:
    """A platform in a directory of its own, which may be stopped, killed and started again."""

    def __init__(self, directory: Path, python: list[str], slot: Slot, *, as_root: bool) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.data = self.home / "data"
        self.python = python
        self.before: tuple[str, ...] = ()
        """A command that runs the platform's own, as `unshare` does."""
        self.gateways: tuple[str, ...] = (slot.gateways,)
        self.slot = slot
        self.as_root = as_root
        self.node = "node-a"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "up.log"
        self._connections = threading.local()
        self._made: list[http.client.HTTPSConnection] = []
        self._said = 0

    # The program

    @property
    def user(self) -> str:
        """Who runs it, for what tests expect."""
        return "root" if self.as_root else "user"

    @property
    def url(self) -> str:
        """Where the API is served."""
        return f"https://127.0.0.1:{self.slot.port}"

    @property
    def dns(self) -> str:
        """The address of cluster DNS."""
        return str(ipaddress.ip_network(self.slot.services[self.as_root])[10])

    @property
    def environment(self) -> dict[str, str]:
        """What its programs run with."""
        sources = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "TZ": "UTC", **sources}

    def line(self, *options: str) -> list[str]:
        """Return the command that starts it."""
        host = "0.0.0.0" if self.as_root else "127.0.0.1"
        given = {
            "--data-dir": str(self.data),
            "--listen": f"{host}:{self.slot.port}",
            "--node-name": self.node,
            "--bridge": self.slot.bridge,
            "--cluster-cidr": self.slot.pods[self.as_root],
            "--service-cluster-ip-range": self.slot.services[self.as_root],
            "--service-node-port-range": self.slot.node_ports,
            "--token-auth-file": str(self.home / "tokens.csv"),
        }
        words = [word for pair in given.items() for word in pair]
        words += [f"--gateway-address={each}" for each in self.gateways]
        return [*self.before, *self.python, "-m", "pilothouse", "up", *words, *options]

    def start(self, *options: str) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self._said = log.tell()
            self.process = subprocess.Popen(
                self.line(*options), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment, cwd="/"
            )
        eventually(self._is_ready, self.logged)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.logged()
        if "ready: serving" not in self.log.read_text(errors="replace")[self._said :]:
            return False
        return self.is_well()

    def is_well(self) -> bool:
        """Whether all its processes run and its node is said to be ready."""
        with contextlib.suppress(OSError, http.client.HTTPException, Refused):
            return self._is_node_ready()
        return False

    def _is_node_ready(self) -> bool:
        parts = self.parts()
        if any(name not in parts for name in ("apiserver", "controllers", "agent")):
            return False
        conditions = self.get("Node", self.node)["status"].get("conditions") or ()
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def logged(self) -> str:
        """Return what it has said."""
        return self.log.read_text(errors="replace")[-8000:] if self.log.exists() else ""

    def stop(self) -> int:
        """Ask it to stop; pods run on. Return its code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.process = None
        return code

    def parts(self) -> dict[str, int]:
        """Return the processes that run now: apiserver, controllers, agent, zygote."""
        state = read_state(str(self.data))
        if self.process is None or state is None or state.pid != self.process.pid:
            return {}
        found = {name: part.pid for name, part in state.parts.items() if is_process(part.pid, part.started)}
        for pid, words in _processes(str(self.data)) if "agent" in found else ():
            if "pilothouse.node.process.zygote" in words and _parent(pid) == found["agent"]:
                found["zygote"] = pid
        return found

    def kill(self, *names: str) -> None:
        """Kill some of its processes at once."""
        parts = self.parts()
        for name in names:
            os.kill(parts[name], signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """Kill the process above all others, which end when they notice."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def crash(self) -> None:
        """Kill all of it at once, the supervisor first, and nothing of its pods."""
        assert self.process is not None
        parts = self.parts()
        self.process.kill()
        for pid in parts.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def clear(self) -> None:
        """End it with its pods, and all that it made of the machine."""
        for connection in self._made:
            connection.close()
        if self.process is not None:
            self.stop()
        if (self.data / "node" / "plan.json").exists():
            self.run("-c", CLEAR, str(self.data / "node" / "plan.json"))

    def end(self) -> list[str]:
        """End it with its pods, and return what is left of it on the machine."""
        self.clear()
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.leftovers(), seconds=20)
        return self.leftovers()

    def run(self, *arguments: str, seconds: float = PATIENCE) -> str:
        """Run Python as its user; return the output of what succeeds."""
        done = subprocess.run(
            [*self.python, *arguments],
            env=self.environment,
            cwd="/",
            capture_output=True,
            timeout=seconds,
            check=False,
            text=True,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def leftovers(self) -> list[str]:
        """Return what of it is on the machine beside its directory, in words."""
        mark = str(self.directory)
        found = [f"process {pid}: {text}" for pid, text in _processes(mark)]
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            found += [f"mount {line.split()[4]}" for line in file if mark in line]
        if not self.as_root:
            return found
        bridge = self.slot.bridge
        found += [f"link {name}" for name in os.listdir("/sys/class/net") if name == bridge]
        for path in detect(bridge).directories("/").values():
            found += [f"group {path}"] if os.path.isdir(path) else []
        tables = _output("nft", "list", "tables").splitlines()
        found += [line for line in tables if line.split()[-1].endswith(f"-{bridge}")]
        prefix = self.slot.services[True].rpartition(".")[0]
        found += [f"address {line}" for line in _output("ip", "-o", "-4", "addr").splitlines() if f" {prefix}." in line]
        routes = self.slot.pods[True].rpartition(".")[0]
        found += [f"route {line}" for line in _output("ip", "route").splitlines() if line.startswith(f"{routes}.")]
        return found

    # The API

    def call(self, method: str, path: str, body: Object | None = None, **headers: str) -> Any:
        """Ask the API as an administrator; return what it says. Raises Refused, OSError, HTTPException."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        sent = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind, **headers}
        data = None if body is None else json.dumps(body)
        connection = self._connection()
        try:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        found = json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text.decode()
        if answer.status >= 400:
            raise Refused(method, path, answer.status, found)
        return found

    def _connection(self) -> http.client.HTTPSConnection:
        found: http.client.HTTPSConnection | None = getattr(self._connections, "made", None)
        if found is None:
            context = ssl.create_default_context(cafile=str(self.data / "pki" / "ca.crt"))
            found = http.client.HTTPSConnection("127.0.0.1", self.slot.port, timeout=30, context=context)
            self._connections.made = found
            self._made.append(found)
        return found

    def path(self, kind: str, name: str = "", namespace: str = "default") -> str:
        """Return the path of a built-in object, or of all of a kind."""
        resource = next(each for each in builtin() if each.kind == kind and each.group != "events.k8s.io")
        place = f"/namespaces/{namespace}" if resource.namespaced else ""
        return f"{resource.path_prefix}{place}/{resource.resource}" + (f"/{name}" if name else "")

    def get(self, kind: str, name: str = "", namespace: str = "default") -> Any:
        """Return an object, or the list of all."""
        return self.call("GET", self.path(kind, name, namespace))

    def items(self, kind: str, selector: str = "", namespace: str = "default") -> list[Object]:
        """Return the objects of a kind that have labels: `app=web`."""
        query = f"?labelSelector={selector.replace('=', '%3D')}" if selector else ""
        found: list[Object] = self.call("GET", self.path(kind, namespace=namespace) + query)["items"]
        return found

    def create(self, *objects: Object) -> None:
        """Create objects, of the default namespace where they name none."""
        for each in objects:
            namespace = each["metadata"].get("namespace", "default")
            self.call("POST", self.path(each["kind"], namespace=namespace), each)

    def patch(self, kind: str, name: str, body: Object, namespace: str = "default") -> Object:
        """Change an object by a merge patch."""
        found: Object = self.call("PATCH", self.path(kind, name, namespace), body)
        return found

    def delete(self, kind: str, name: str, namespace: str = "default", **options: Any) -> None:
        """Delete an object, if it is there."""
        with contextlib.suppress(Refused):
            self.call("DELETE", self.path(kind, name, namespace), options or None)

    def until(self, kind: str, name: str, true: Callable[[Object], Any], namespace: str = "default") -> Object:
        """Wait until something is so of an object, and return it. The server may be away meanwhile."""
        last: Object = {}

        def found() -> bool:
            nonlocal last
            with contextlib.suppress(OSError, http.client.HTTPException, Refused):
                last = self.get(kind, name, namespace)
                return bool(true(last))
            return False

        eventually(found, lambda: f"{kind} {name}: {json.dumps(last.get('status'))}\n{self.told(namespace)}")
        return last

    def until_gone(self, kind: str, name: str, namespace: str = "default") -> None:
        """Wait until an object is not there."""

        def gone() -> bool:
            try:
                self.get(kind, name, namespace)
            except Refused as refused:
                return refused.status == 404
            return False

        eventually(gone, lambda: f"{kind} {name} is still there\n{self.told(namespace)}")

    def until_running(self, name: str) -> Object:
        """Wait until a pod is ready."""
        return self.until("Pod", name, is_ready)

    def events(self, name: str = "", namespace: str = "default") -> list[Object]:
        """Return events, of one object or of all."""
        found = self.items("Event", namespace=namespace)
        return [each for each in found if not name or each["involvedObject"]["name"] == name]

    def until_event(self, name: str, reason: str, text: str = "") -> Object:
        """Wait until an object has an event of a reason, with a text in its message, and return it."""

        def found() -> Object | None:
            for each in self.events(name):
                if each["reason"] == reason and text in each.get("message", ""):
                    return each
            return None

        event = eventually(found, lambda: self.told("default"))
        assert event is not None
        return event

    def told(self, namespace: str) -> str:
        """Return all events in words, for those who look why something failed."""
        with contextlib.suppress(OSError, http.client.HTTPException, Refused):
            found = self.events(namespace=namespace)
            lines = [f"{each['involvedObject']['name']} {each['reason']}: {each.get('message')}" for each in found]
            return "\n".join([*lines[-30:], self.logged()[-2000:]])
        return self.logged()

    # Clients

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, as `up` writes it."""
        return self.data / "admin.kubeconfig"

    def client(self, program: str, *arguments: str) -> list[str]:
        """Return the command line of a real client; skip the test where it is missing."""
        found = _CLIENTS / program
        if not found.exists():
            pytest.skip(f"{program} is not in .venv/clients: run scripts/real-clients")
        return [str(found), *arguments]

    def client_environment(self, **more: str) -> dict[str, str]:
        """Return what clients run with: nothing of the caller's but the path."""
        own = {"HOME": str(self.directory), "KUBECONFIG": str(self.kubeconfig), "TZ": "UTC"}
        return {"PATH": os.environ["PATH"], **own, **more}

    def whole(self, program: str, *arguments: str, data: str = "") -> subprocess.CompletedProcess[str]:
        """Run a client to its end."""
        return subprocess.run(
            self.client(program, *arguments),
            input=data,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=self.client_environment(),
        )

    def kubectl(self, *arguments: str, data: str = "") -> str:
        """Return the output of a kubectl that succeeds."""
        done = self.whole("kubectl", *arguments, data=data)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr, self.told("default"))
        return done.stdout.rstrip("\n")


def is_ready(pod: Object) -> bool:
    """Whether a pod's condition says so."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


CLEAR = """
import asyncio, sys
from pilothouse.node.clearing import clear
from pilothouse.platform.agent import runtime_options
from pilothouse.platform.nodeplan import read_plan
plan = read_plan(sys.argv[1])
tables = (plan.services_table, plan.policies_table)
print(asyncio.run(clear(runtime_options(plan), grace=0.0, pods=f"{plan.directory}/agent/pods", tables=tables,
    addresses=(plan.dns,), cluster_cidr=plan.cluster_cidr)))
"""


@contextmanager
def platform_of(user: str, *options: str, starts: bool = True) -> Iterator[Platform]:
    """Start a platform as `root` or as a `user` who is not; at the end nothing of it may be left."""
    directory = Path(tempfile.mkdtemp(prefix="phe"))
    directory.chmod(0o755)
    try:
        with _slot() as slot:
            python = [sys.executable] if user == "root" else user_python(directory)
            if python is None:
                pytest.skip("there is no ordinary user's Python: setpriv and python3 in /usr/bin are wanted")
            made = Platform(directory, python, slot, as_root=user == "root")
            _make_home(made)
            left: list[str] = []
            try:
                if starts:
                    made.start(*options)
                yield made
            finally:
                left = made.end()
                _sweep(made)
            assert not left, left
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _make_home(made: Platform) -> None:
    made.home.mkdir()
    tokens = made.home / "tokens.csv"
    tokens.write_text(f'{_TOKEN},root,root-uid,"system:masters"\n')
    tokens.chmod(0o600)
    made.home.chmod(0o711)
    if not made.as_root and os.geteuid() == 0:
        for path in (made.home, tokens):
            os.chown(path, _USER, _USER)


def _sweep(made: Platform) -> None:
    """End what is left all the same, so that one test's failure is not another's."""
    for pid, _ in _processes(str(made.directory)):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    if made.as_root:
        bridge = made.slot.bridge
        if Path(f"/sys/class/net/{bridge}").exists():
            _output("ip", "link", "delete", bridge)
        for line in _output("nft", "list", "tables").splitlines():
            if line.endswith(f"-{bridge}"):
                _output("nft", "delete", *line.split())
        detect().remove(bridge)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=30).stdout


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    return 0


def _has_mounted(pid: int, mark: str) -> bool:
    """Whether a process has something of a directory mounted; that others see a mount that is in it does not count."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return any(mark in line.split()[3] for line in lines)


def _processes(mark: str) -> list[tuple[int, str]]:
    """Return processes that were started with a directory, or have something of it mounted."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            words = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            own = int(name) == os.getpid() or state in "ZX"
            if not own and (mark in words or _has_mounted(int(name), mark)):
                found.append((int(name), words))
    return found
