"""The real kube-apiserver over a real etcd, and kube-scheduler, built where Go is: what ours is measured beside."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from _apiserver import Server, Serving, token_file
from _kit import CACHE, Spread, note
from _peers import etcds, free_port, go_step, running, wait_until

__all__ = ["KUBE_VERSION", "against", "peer", "scheduler"]

KUBE_VERSION = "v1.36.0"

_MODULE = "k8s.io/kubernetes"
_STAGED = re.compile(r"^\s*(k8s\.io/\S+) => \./staging/", re.MULTILINE)
_COMMANDS = {"kube-apiserver": "NewAPIServerCommand", "kube-scheduler": "NewSchedulerCommand"}
_MAIN = """package main

import (
\t"os"

\t"k8s.io/component-base/cli"
\t"k8s.io/kubernetes/cmd/NAME/app"
)

func main() { os.Exit(cli.Run(app.COMMAND())) }
"""


@functools.cache
def peer(*, build: bool) -> Serving | None:
    """Return what starts a kube-apiserver with its own etcd; None, the reason said, where it cannot be had.

    build: build it where that has not been done yet, which takes many minutes.
    """
    program = _program("kube-apiserver", build=build)
    stores = etcds() if program is not None else []
    if program is None or not stores:
        return None
    store = stores[-1]  # the newer one

    @contextlib.contextmanager
    def serving(directory: Path) -> Iterator[Server]:
        begun, port = time.monotonic(), free_port()
        tokens = token_file(directory)
        with store.start(directory / "etcd") as etcd:
            command = [str(program), *_arguments(directory, tokens), f"--secure-port={port}"]
            command += [f"--etcd-servers=http://{etcd.target}"]
            with running(command, directory / "kube-apiserver.log") as process:
                server = Server((process.pid, etcd.pid), f"https://127.0.0.1:{port}", 0.0, directory)
                wait_until(process, lambda: _is_ready(server))
                yield server._replace(ready=time.monotonic() - begun)

    return serving


@functools.cache
def scheduler(*, build: bool) -> Path | None:
    """Return the kube-scheduler; None, the reason said, where it cannot be had. build: as for `peer`."""
    return _program("kube-scheduler", build=build)


def against(value: Spread | float | None) -> dict[str, Any]:
    """Return what a report says of the peer's value."""
    return {} if value is None else {"peer": f"kube-apiserver {KUBE_VERSION}", "peer_spread": value}


def _is_ready(server: Server) -> bool:
    try:
        return server.call("GET", "/readyz")[0] == 200
    except OSError:
        return False


def _arguments(directory: Path, tokens: Path) -> list[str]:
    key = directory / "service-accounts.key"
    if not key.exists():
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        form = serialization.PrivateFormat.TraditionalOpenSSL
        key.write_bytes(made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        key.chmod(0o600)
    return [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--allow-privileged=true",
        "--authorization-mode=RBAC",
        f"--cert-dir={directory / 'certificates'}",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",
        f"--token-auth-file={tokens}",
    ]


def _program(name: str, *, build: bool) -> Path | None:
    """Build a program of Kubernetes in a module of its own, with the modules it is made of in the versions it wants."""
    program = CACHE / f"{name}-{KUBE_VERSION}" / name
    if program.exists():
        return program
    if not build:
        note(f"left out: {name} {KUBE_VERSION}: it is not built yet, which a run without --quick does")
        return None
    go = shutil.which("go")
    if go is None:
        note(f"left out: {name} {KUBE_VERSION}: Go is not installed, and it is built from {_MODULE}")
        return None
    note(f"building {name} {KUBE_VERSION} into build/bench-cache (once, many minutes)")
    directory = program.parent
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        told = json.loads(go_step([go, "mod", "download", "-json", f"{_MODULE}@{KUBE_VERSION}"], directory))
        staged = _STAGED.findall(Path(told["GoMod"]).read_text(encoding="utf-8"))
        own = KUBE_VERSION.replace("v1.", "v0.")
        lines = ["module peer", "go 1.26", f"require {_MODULE} {KUBE_VERSION}"]
        lines += [f"replace {module} => {module} {own}" for module in staged]
        main = _MAIN.replace("NAME", name).replace("COMMAND", _COMMANDS[name])
        (directory / "go.mod").write_text("\n".join(lines) + "\n", encoding="ascii")
        (directory / "main.go").write_text(main, encoding="ascii")
        go_step([go, "mod", "tidy"], directory)
        go_step([go, "build", "-o", program.name, "."], directory)
    except RuntimeError as error:
        note(f"left out: {name} {KUBE_VERSION}: {error}")
        return None
    return program
