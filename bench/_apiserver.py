"""Starts an API server in a process of its own, as a user would, and puts load on it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from _kit import ROOT, note, resident_bytes

__all__ = [
    "PODS",
    "SCHEDULER_TOKEN",
    "TOKEN",
    "Server",
    "Serving",
    "creating",
    "pod",
    "prepare",
    "serving",
    "token_file",
    "unverified",
    "wrk",
]

TOKEN = "bench-token"
SCHEDULER_TOKEN = "bench-scheduler-token"
PODS = "/api/v1/namespaces/default/pods"
Serving = Callable[[Path], AbstractContextManager["Server"]]
"""Starts a server with its data in a directory and ends it afterwards."""

_READY_SECONDS = 60.0
_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")


class Server(NamedTuple):
    """A running server: its processes, URL, and the seconds from its start until it was ready."""

    pids: tuple[int, ...]
    url: str
    ready: float
    directory: Path

    @property
    def megabytes(self) -> float:
        """What all its processes hold in memory, in MB."""
        return sum(resident_bytes(pid) for pid in self.pids) / 1e6

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Send one request; return code and body."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, context=unverified(), timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def unverified() -> ssl.SSLContext:
    """Return a context that takes any certificate: the client is no part of what is measured."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def serving(directory: Path, *arguments: str) -> Iterator[Server]:
    """Start `pilothouse apiserver` on a free port, wait until it is ready, and end it afterwards."""
    tokens = token_file(directory)
    # Compiled modules are kept, as after any installation.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pilothouse", "apiserver", "--data-dir", str(directory / "data")]
    command += ["--listen", "127.0.0.1:0", "--token-auth-file", str(tokens), "--log-level", "error", *arguments]
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"https://\S+:\d+", line)
            if found is None:
                raise SystemExit(f"the API server did not start: {line!r}")
            server = Server((process.pid,), found[0], 0.0, directory)
            while server.call("GET", "/readyz")[0] != 200:
                if time.monotonic() - begun > _READY_SECONDS:
                    raise SystemExit("the API server did not become ready")
                time.sleep(0.005)
            yield server._replace(ready=time.monotonic() - begun)
        finally:
            process.terminate()
            process.wait(30)


def token_file(directory: Path) -> Path:
    """Write the file of tokens: that of most requests, to which nothing is forbidden, and that of a scheduler."""
    directory.mkdir(parents=True, exist_ok=True)
    tokens = directory / "tokens.csv"
    scheduler = "system:kube-scheduler"
    tokens.write_text(f'{TOKEN},admin,admin,"system:masters"\n{SCHEDULER_TOKEN},{scheduler},{scheduler}\n')
    tokens.chmod(0o600)
    return tokens


def pod(name: str) -> dict[str, Any]:
    """Return a pod of 2 KB as a client sends it; stored it has about three times as much."""
    containers = [
        {
            "name": f"c{number}",
            "image": f"registry.example/app/service-{number}:1.2.{number}",
            "args": ["--port", "8080", "--verbose"],
            "ports": [{"containerPort": 8080 + number, "name": f"http{number}"}],
            "env": [{"name": f"SETTING_{each}", "value": f"value-{each}"} for each in range(6)],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080 + number}, "periodSeconds": 10},
        }
        for number in range(3)
    ]
    metadata = {
        "name": name,
        "labels": {"app": "web", "tier": "front", "release": "stable"},
        "annotations": {"example.com/owner": "team-a", "example.com/note": "n" * 120},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"automountServiceAccountToken": False, "containers": containers},
    }


def prepare(server: Server) -> None:
    """Create the service account that pods need."""
    code, body = server.call("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    if code not in {201, 409}:
        raise SystemExit(f"service account: {code} {body!r}")


def wrk(server: Server, path: str, *, connections: int, seconds: int, script: str = "") -> float:
    """Run wrk on one path and return requests per second; any refusal ends the benchmark."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not installed (Debian package wrk)")
    command = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Authorization: Bearer {TOKEN}"]
    if script:
        file = server.directory / "load.lua"
        file.write_text(script)
        command += ["-s", str(file)]
    done = subprocess.run([*command, server.url + path], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"requests were refused:\n{done.stdout}")
    note(done.stdout.strip().splitlines()[-2])
    found = _RATE.search(done.stdout)
    return float(found[1]) if found else 0.0


def creating(prefix: str) -> str:
    """Return a wrk script that creates one pod after another."""
    body = json.dumps(pod("NAME"))
    return f"""
local n = 0
local before, after = string.match([==[{body}]==], "^(.*)NAME(.*)$")
request = function()
  n = n + 1
  return wrk.format("POST", "{PODS}", {{["Authorization"]="Bearer {TOKEN}", ["Content-Type"]="application/json"}},
    before .. "{prefix}-" .. n .. after)
end
"""
