"""Real kubectl, new (WebSocket) and old (SPDY), through the API server to a node: logs, commands, streams, ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.agentkit import container, pod
from support.nodekit import NEEDS_ROOT, eventually, place
from support.servingkit import Kubectl, ServedCluster, kubectl_program, served_cluster

pytestmark = [NEEDS_ROOT, pytest.mark.timeout(120), pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SERVER = (
    "import socketserver as s\n"
    "class H(s.StreamRequestHandler):\n"
    "    def handle(self):\n"
    "        data = self.rfile.read()\n"
    "        self.wfile.write(b'got ' + data)\n"
    "s.ThreadingTCPServer.allow_reuse_address = True\n"
    "s.ThreadingTCPServer(('127.0.0.1', 8080), H).serve_forever()\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[ServedCluster]:
    async with place() as room, served_cluster(room) as made:
        await made.create(
            pod(
                "web",
                container("echo one; sleep 1.1; echo two >&2; exec sleep 1000"),
                container("exec cat", "side", stdin=True),
                {"name": "port", "image": "host", "command": ["python3", "-c", SERVER]},
            )
        )
        await made.create(pod("dies", "echo run; exit 3", restartPolicy="Always"))
        yield made
        for name in ("web", "dies"):
            await made.plane.call("DELETE", f"/api/v1/namespaces/default/pods/{name}")
            await made.until_gone(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["kubectl", "kubectl-1.20"])
async def kubectl(
    request: pytest.FixtureRequest, cluster: ServedCluster, tmp_path_factory: pytest.TempPathFactory
) -> Kubectl:
    home = tmp_path_factory.mktemp("kubectl")
    found = Kubectl(kubectl_program(str(request.param)), cluster.plane, home)
    await cluster.until("web", lambda it: it["status"].get("phase") == "Running")
    return found


async def test_logs_are_chosen_by_options(kubectl: Kubectl, cluster: ServedCluster) -> None:
    for _ in range(200):
        if "two" in await kubectl("logs", "web", "-c", "main"):
            break
    assert await kubectl("logs", "web", "-c", "main") == "one\ntwo\n"
    assert await kubectl("logs", "web", "-c", "main", "--tail=1") == "two\n"
    assert await kubectl("logs", "web", "-c", "main", "--limit-bytes=5") == "one\nt"
    stamped = (await kubectl("logs", "web", "-c", "main", "--timestamps")).splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == ["one", "two"]
    second = stamped[1].split(" ")[0][:19] + "Z"
    assert await kubectl("logs", "web", "-c", "main", f"--since-time={second}") == "two\n"
    assert await kubectl("logs", "web", "-c", "main", "--since=1h") == "one\ntwo\n"


async def test_what_has_no_log_is_told_as_a_kubelet_does(kubectl: Kubectl) -> None:
    code, _, err = await kubectl.whole("logs", "web", "-c", "main", "--previous")
    assert (code, 'previous terminated container "main" in pod "web" not found' in err) == (1, True), err
    code, _, err = await kubectl.whole("logs", "web", "-c", "nosuch")
    assert code == 1
    assert "container nosuch is not valid for pod web" in err


async def test_the_log_of_the_run_before_is_there(kubectl: Kubectl, cluster: ServedCluster) -> None:
    await cluster.until("dies", lambda it: it["status"]["containerStatuses"][0].get("restartCount", 0) >= 1)
    assert await kubectl("logs", "dies", "--previous") == "run\n"


async def test_a_log_is_followed(kubectl: Kubectl, cluster: ServedCluster) -> None:
    name = f"talks{'-old' if kubectl.old else ''}"
    await cluster.create(pod(name, "for i in 1 2 3; do echo line $i; sleep 0.3; done", restartPolicy="Never"))
    await cluster.until(name, lambda it: it["status"].get("phase") in {"Running", "Succeeded"})
    assert await kubectl("logs", "-f", name) == "line 1\nline 2\nline 3\n"
    await cluster.plane.call("DELETE", f"/api/v1/namespaces/default/pods/{name}")
    await cluster.until_gone(name)


async def test_commands_have_outputs_and_codes(kubectl: Kubectl) -> None:
    found = await kubectl.whole("exec", "web", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (found[0], found[1], found[2].splitlines()[0]) == (7, "out\n", "err")
    assert "command terminated with exit code 7" in found[2]
    code, _, err = await kubectl.whole("exec", "web", "-c", "main", "--", "nosuchprogram")
    assert code != 0
    assert "nosuchprogram" in err


async def test_commands_get_input_to_its_end(kubectl: Kubectl) -> None:
    data = b"0123456789abcdef" * 65536
    out = await kubectl("exec", "-i", "web", "-c", "main", "--", "sh", "-c", "cat | sha256sum; echo end", data=data)
    import hashlib

    assert out == f"{hashlib.sha256(data).hexdigest()}  -\nend\n"


async def test_a_terminal_has_its_size(kubectl: Kubectl) -> None:
    line = kubectl.line("exec", "-it", "web", "-c", "main", "--", "sh", "-c", "'sleep 0.5; stty size; tty'")
    process = await asyncio.create_subprocess_exec(
        "script",
        "-qec",
        f"stty cols 91 rows 33; exec {line}",
        "/dev/null",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    out = await asyncio.wait_for(process.stdout.read(), 30)
    process.stdin.close()
    await process.wait()
    assert b"33 91" in out
    assert b"/dev/pts/" in out


async def test_attach_reads_and_writes(kubectl: Kubectl) -> None:
    process = await kubectl.start("attach", "-i", "web", "-c", "side", stdin=True)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"hello\n"
    process.kill()
    await process.wait()


async def test_files_are_copied_both_ways(kubectl: Kubectl, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 4096)
    await kubectl("cp", str(source), "default/web:/tmp/copied", "-c", "main")
    await kubectl("cp", "default/web:/tmp/copied", str(back), "-c", "main")
    assert back.read_bytes() == source.read_bytes()


async def test_ports_are_forwarded_with_half_closes(kubectl: Kubectl) -> None:
    process = await kubectl.start("port-forward", "pod/web", ":8080")
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        port = int(line.split("127.0.0.1:")[1].split()[0])
        for text in (b"first", b"second" * 50_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(text)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 30) == b"got " + text
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    finally:
        process.kill()
        await process.wait()


async def test_top_shows_what_pods_and_nodes_use(kubectl: Kubectl, cluster: ServedCluster) -> None:
    end = asyncio.get_running_loop().time() + 60
    while True:
        code, out, err = await kubectl.whole("top", "pods", "--containers")
        if not code and "side" in out:
            break
        assert asyncio.get_running_loop().time() < end, (out, err)
        await asyncio.sleep(0.5)
    row = next(line.split() for line in out.splitlines() if "side" in line)
    assert row[:2] == ["web", "side"]
    assert row[2].endswith("m")
    assert row[3].endswith("Mi")
    assert "one" in await kubectl("top", "nodes")


async def test_many_commands_at_once_with_much_output(kubectl: Kubectl) -> None:
    command = ("exec", "web", "-c", "main", "--", "sh", "-c", "head -c 4000000 /dev/zero | tr '\\0' x; exit 3")
    found = await asyncio.gather(*(kubectl.whole(*command) for _ in range(6)))
    assert [(code, len(out), set(out)) for code, out, _ in found] == [(3, 4_000_000, {"x"})] * 6


def sleepers(seconds: int) -> list[str]:
    """Return the processes of this machine that sleep so long."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == f"sleep\0{seconds}\0".encode():
                found.append(path.parent.name)
    return found


async def test_a_client_that_goes_ends_its_command(kubectl: Kubectl) -> None:
    seconds = 100_000 + os.getpid()
    process = await kubectl.start("exec", "web", "-c", "main", "--", "sh", "-c", f"echo on; exec sleep {seconds}")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"on\n"
    await eventually(lambda: bool(sleepers(seconds)))
    process.kill()
    await process.wait()
    await eventually(lambda: not sleepers(seconds))


async def test_a_new_agent_goes_on(kubectl: Kubectl, cluster: ServedCluster) -> None:
    if kubectl.old:
        pytest.skip("once is enough")
    plane = cluster.plane
    await plane.call("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "m"}, "data": {"a": "1"}})
    mounts = [{"name": "c", "mountPath": "/config"}]
    volumes = [{"name": "c", "configMap": {"name": "m"}}]
    await cluster.create(pod("lives", container("exec sleep 1000", volumeMounts=mounts), volumes=volumes))
    await cluster.create(pod("over", "echo last words", restartPolicy="Never"))
    await cluster.until("lives", lambda it: it["status"].get("phase") == "Running")
    await cluster.until("over", lambda it: it["status"].get("phase") == "Succeeded")
    await cluster.again()
    assert await kubectl("logs", "over") == "last words\n"
    assert await kubectl("exec", "lives", "--", "cat", "/config/a") == "1"
    await plane.call("PATCH", "/api/v1/namespaces/default/configmaps/m", {"data": {"a": "2"}})
    assert await kubectl("exec", "lives", "--", "sh", "-c", "until grep 2 /config/a; do sleep 0.05; done") == "2\n"
    for name in ("lives", "over"):
        await plane.call("DELETE", f"/api/v1/namespaces/default/pods/{name}")
        await cluster.until_gone(name)
