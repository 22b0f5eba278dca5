"""Real clients against a server that runs as a program: its process, and commands that must end as expected."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "CLIENTS",
    "Command",
    "Server",
    "call",
    "client_program",
    "dump",
    "eventually",
    "line_of",
    "make_namespace",
    "prepare",
    "running",
    "serving_program",
    "ship_definition",
    "which",
]

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"
Object = dict[str, Any]
_READY = re.compile(r"ready: serving Kubernetes on (\S+), kubeconfig in (\S+)")
_TOKENS = 'alice-token,alice,alice-uid,"devs"\nroot-token,root,root-uid,"system:masters"\n'


def client_program(name: str) -> Path:
    """Return a client that scripts/real-clients put there; skip the test where it is missing."""
    program = CLIENTS / name
    if not program.exists():
        pytest.skip(f"{name} is not in .venv/clients: run scripts/real-clients")
    return program


@dataclass
class Server:
    """A running server. home: a directory for clients' caches and files."""

    url: str
    kubeconfig: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """What clients run with: nothing of the caller's but the path."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig), "TZ": "UTC"}


@contextlib.contextmanager
def serving_program(directory: Path, command: str = "up") -> Iterator[Server]:
    """Run `pilothouse up` or `apiserver` until the end; it must stop by itself when told to.

    Clients' tests play the controllers themselves, so `up` is without.
    """
    tokens = directory / "tokens.csv"
    tokens.write_text(_TOKENS)
    tokens.chmod(0o600)
    arguments = ["--data-dir", str(directory / "data"), "--listen", "127.0.0.1:0", "--token-auth-file", str(tokens)]
    if command == "up":
        arguments += ["--role", "server", "--without", "controllers,scheduler,load-balancers,gateway,dns"]
    log = directory / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pilothouse", command, *arguments], stdout=subprocess.PIPE, stderr=errors
        )
    try:
        found = _READY.match(line_of(process, 30))
        assert found is not None, log.read_text()
        yield Server(found[1], Path(found[2]), directory)
    finally:
        process.send_signal(signal.SIGTERM)
        with process:
            code = process.wait(20)
    assert code == 0, log.read_text()
    assert "Traceback" not in log.read_text()


def line_of(process: subprocess.Popen[bytes], seconds: float = 20) -> str:
    """Return the next line that a process prints; what comes of it by then if it does not."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline().decode() if ready else ""


@dataclass
class Command:
    """A client's program with what it always gets. Standard error must stay empty where a command succeeds."""

    program: Path
    server: Server
    always: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def old(self) -> bool:
        """Whether it is the oldest kubectl, which lacks some commands."""
        return self.program.name == "kubectl-1.20"

    def with_(self, *always: str, **environment: str) -> Command:
        """Return the same with more that it always gets."""
        return Command(self.program, self.server, (*self.always, *always), {**self.environment, **environment})

    def line(self, arguments: Sequence[str]) -> list[str]:
        """Return the whole command line."""
        return [str(self.program), *self.always, *arguments]

    def whole(self, *arguments: str, data: str = "", seconds: float = 30) -> tuple[int, str, str]:
        """Run it; return exit status and both outputs."""
        done = subprocess.run(
            self.line(arguments),
            input=data.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
            env={**self.server.environment, **self.environment},
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def __call__(self, *arguments: str, data: str = "", warns: str = "") -> str:
        """Return the output of a command that succeeds, without the last line end. warns: what it says besides."""
        code, out, err = self.whole(*arguments, data=data)
        assert (code, warns in err, bool(err)) == (0, True, bool(warns)), (arguments, code, out, err)
        return out.rstrip("\n")

    def fails(self, *arguments: str, code: int = 1, data: str = "") -> str:
        """Return what a command that fails says on standard error."""
        found, out, err = self.whole(*arguments, data=data)
        assert found == code, (arguments, found, out, err)
        return err.rstrip("\n")

    def json(self, *arguments: str) -> Any:
        """Return the decoded output of a command that prints JSON."""
        return json.loads(self(*arguments, "-o", "json"))

    def made(self, *objects: Object) -> str:
        """Create objects, and tell what is printed about it."""
        return self("create", "-f", "-", data=dump(*objects))


def dump(*objects: Object) -> str:
    """Return objects as one document that clients read."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


@contextlib.contextmanager
def running(command: Command, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside the test, and end it."""
    process = subprocess.Popen(
        command.line(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**command.server.environment, **command.environment},
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.terminate()
        with process:
            process.wait(10)


def eventually(true: Any, seconds: float = 15.0) -> None:
    """Wait until something has come about. Raises AssertionError where it does not."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.05)


def which(name: str, reason: str) -> str:
    """Return where a program is; skip the test where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} not found: {reason}")
    return found


def ship_definition() -> Object:
    """The kind Ship of example.com/v1, of which all clients make some."""
    number = {"type": "integer", "description": "How many sail."}
    spec = {"type": "object", "properties": {"crew": number}, "required": ["crew"]}
    status = {"type": "object", "properties": {"crew": {"type": "integer"}}}
    schema = {"type": "object", "description": "A ship at sea.", "properties": {"spec": spec, "status": status}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [{"name": "Crew", "type": "integer", "jsonPath": ".spec.crew"}],
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.crew", "statusReplicasPath": ".status.crew"},
        },
    }
    names = {"kind": "Ship", "plural": "ships", "singular": "ship", "shortNames": ["shp"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.example.com"},
        "spec": {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [version]},
    }


def call(server: Server, method: str, path: str, body: Object | None = None) -> Object:
    """Ask the server as an administrator. Raises urllib.error.HTTPError for what it refuses."""
    authority = ssl.create_default_context(cafile=str(server.home / "data" / "pki" / "ca.crt"))
    headers = {"Authorization": "Bearer root-token", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(server.url + path, data, headers, method=method)
    with urllib.request.urlopen(asked, context=authority, timeout=20) as answer:
        found: Object = json.load(answer)
    return found


def make_namespace(server: Server, name: str) -> None:
    """Make a namespace, without a client's start."""
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    call(server, "POST", "/api/v1/namespaces", made)


def prepare(server: Server, *namespaces: str) -> None:
    """Make namespaces, and define ships."""
    for name in namespaces:
        make_namespace(server, name)
    call(server, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", ship_definition())
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ships.example.com"

    def established() -> bool:
        conditions = call(server, "GET", path)["status"].get("conditions") or ()
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    eventually(established)
