"""`pilothouse up`: what kubectl, new and old, streams through the API server to the node and its certificate."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.platformkit import PATIENCE, USERS, Platform, eventually, platform_of
from support.platformload import PORT, configured, pod, shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CLIENTS = ["kubectl", "kubectl-1.20"]  # WebSocket, and SPDY
TALKS = "echo one; echo two >&2; i=0; while sleep 0.2; do i=$((i+1)); echo tick $i; done"


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        made.create(pod("talks", shell(TALKS), shell("exec cat", "echo", stdin=True), server(made)))
        made.create(pod("falls", shell("echo last words; exit 3")))
        made.until_running("talks")
        yield made


def server(platform: Platform) -> dict[str, Any]:
    """Return a server that also listens where ports are forwarded to: at the pod's loopback, if it has its own."""
    made = configured()
    if platform.as_root:
        made["env"][0] = {"name": "POD_IP", "value": "0.0.0.0"}
    return made


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, platform: Platform) -> str:
    found: str = request.param
    platform.client(found)
    return found


def output(platform: Platform, client: str, *arguments: str, data: str = "", code: int = 0) -> str:
    done = platform.whole(client, *arguments, data=data)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    return done.stdout


@contextlib.contextmanager
def running(platform: Platform, client: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client beside the test, and end it."""
    process = subprocess.Popen(
        platform.client(client, *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=platform.client_environment(),
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_said(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """Read what a process prints until a text is among it."""
    assert process.stdout is not None
    said = b""
    deadline = time.monotonic() + PATIENCE
    while text not in said:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(process.stdout.fileno(), 65536) if ready else b""
        assert data, (text, said)
        said += data
    return said


def test_logs_of_now_and_of_the_run_before(platform: Platform, client: str) -> None:
    with running(platform, client, "logs", "-f", "talks", "-c", "main", "--timestamps") as process:
        said = until_said(process, b"tick 3").decode()
    assert re.match(r"\d{4}-\d\d-\d\dT[0-9:.]+Z one\n\S+ two\n", said)
    assert output(platform, client, "logs", "talks", "-c", "main", "--since=1h").startswith("one\ntwo\n")
    assert not output(platform, client, "logs", "talks", "-c", "main", "--since=1s").startswith("one")
    platform.until("Pod", "falls", lambda it: it["status"]["containerStatuses"][0]["restartCount"])
    assert output(platform, client, "logs", "falls", "--previous") == "last words\n"


def test_commands_with_input_output_and_code(platform: Platform, client: str) -> None:
    line = "cat; echo done >&2; exit 7"
    done = platform.whole(client, "exec", "-i", "talks", "-c", "main", "--", "sh", "-c", line, data="given")
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (7, "given", "done")


def test_a_terminal(platform: Platform, client: str) -> None:
    upper, lower = pty.openpty()
    command = platform.client(
        client, "exec", "-it", "talks", "-c", "main", "--", "sh", "-c", "tty; read x; echo got $x"
    )
    process = subprocess.Popen(
        command, stdin=lower, stdout=lower, stderr=lower, env=platform.client_environment(TERM="dumb")
    )
    os.close(lower)
    try:
        until_read(upper, b"/dev/pts/")
        os.write(upper, b"it\n")
        until_read(upper, b"got it")
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(upper)


def until_read(descriptor: int, text: bytes) -> None:
    said = b""
    deadline = time.monotonic() + PATIENCE
    while text not in said:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, said
        said += os.read(descriptor, 4096)


def test_attach(platform: Platform, client: str) -> None:
    with running(platform, client, "attach", "-i", "talks", "-c", "echo") as process:
        assert process.stdin is not None
        process.stdin.write(b"hello\n")
        until_said(process, b"hello\n")


def test_copies(platform: Platform, client: str, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(300_000))
    output(platform, client, "cp", str(source), f"talks:/tmp/{client}", "-c", "main")
    output(platform, client, "cp", f"talks:/tmp/{client}", str(back), "-c", "main")
    assert back.read_bytes() == source.read_bytes()


def test_forwarded_ports(platform: Platform, client: str) -> None:
    import urllib.request

    with running(platform, client, "port-forward", "pod/talks", f":{PORT}") as process:
        said = until_said(process, b"127.0.0.1:").decode()
        port = said.partition("127.0.0.1:")[2].split()[0]
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                assert answer.read().startswith(b"1 talks ")


def test_a_debugging_container_sees_the_pod(platform: Platform) -> None:
    line = ("debug", "talks", "--image=host", "--container=look", "--target=main", "--profile=general")
    platform.kubectl(*line, "--", "sh", "-c", "echo looked; exec sleep 1000")
    eventually(lambda: platform.whole("kubectl", "logs", "talks", "-c", "look").stdout == "looked\n")


def test_what_pods_and_nodes_use(platform: Platform) -> None:
    def shown() -> bool:
        return "talks" in platform.whole("kubectl", "top", "pods", "--containers").stdout

    eventually(shown, lambda: platform.whole("kubectl", "top", "pods"))
    assert re.search(rf"{platform.node}\s+\d+m", platform.kubectl("top", "nodes"))


def test_a_client_that_goes_ends_its_command(platform: Platform) -> None:
    with running(
        platform, "kubectl", "exec", "talks", "-c", "main", "--", "sh", "-c", "echo on; exec sleep 4321"
    ) as it:
        until_said(it, b"on\n")
        it.send_signal(signal.SIGKILL)
        it.wait()
    look = ("exec", "talks", "-c", "main", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    eventually(lambda: "sleep 4321" not in platform.kubectl(*look))
