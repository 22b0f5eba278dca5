"""Real kubectl, new (WebSocket) and old (SPDY), against exec, attach, port-forward and logs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.kubeletkit import kubelet_streams
from support.streamkit import LINE, ApiHandler, FakeNodes, make_pod, serving

CLIENTS = Path(__file__).parents[3] / ".venv" / "clients"
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["kubectl", "kubectl-1.20"])
def kubectl(request: pytest.FixtureRequest) -> Path:
    program = CLIENTS / str(request.param)
    if not program.exists():
        pytest.skip(f"{program.name} is not in .venv/clients: run scripts/real-clients")
    return program


@pytest.fixture
def nodes() -> FakeNodes:
    return FakeNodes()


@pytest.fixture
def handler(nodes: FakeNodes) -> ApiHandler:
    return ApiHandler(nodes, make_pod())


@pytest.fixture
async def through_a_kubelet(handler: ApiHandler, nodes: FakeNodes, tmp_path: Path) -> AsyncIterator[None]:
    """Let what runs commands be a node of its own."""
    async with kubelet_streams(nodes, tmp_path) as (streams, _):
        handler.nodes = streams
        yield


@pytest.fixture
async def config(handler: ApiHandler, tmp_path: Path) -> AsyncIterator[Path]:
    async with serving(handler, tmp_path) as (_, config):
        yield config


async def start(kubectl: Path, config: Path, *arguments: str, stdin: int | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        str(kubectl),
        f"--kubeconfig={config}",
        f"--cache-dir={config.parent / 'cache'}",
        *arguments,
        stdin=stdin if stdin is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(kubectl: Path, config: Path, *arguments: str, data: bytes | None = None) -> tuple[int, bytes, bytes]:
    pipe = asyncio.subprocess.PIPE if data is not None else None
    process = await start(kubectl, config, *arguments, stdin=pipe)
    out, err = await asyncio.wait_for(process.communicate(data), 30)
    return process.returncode or 0, out, err


async def test_exec_writes_both_outputs(kubectl: Path, config: Path, nodes: FakeNodes, handler: ApiHandler) -> None:
    assert await run(kubectl, config, "exec", "web", "--", "both") == (0, b"to out\n", b"to err\n")
    assert nodes.calls == [("web", "app", ("both",), False)]
    assert handler.upgrades == ["websocket" if kubectl.name == "kubectl" else "SPDY/3.1"]


async def test_exec_tells_the_exit_code(kubectl: Path, config: Path) -> None:
    code, out, err = await run(kubectl, config, "exec", "web", "--", "exit", "3")
    assert (code, out, err) == (3, b"", b"command terminated with exit code 3\n")


async def test_exec_tells_what_failed(kubectl: Path, config: Path) -> None:
    code, _, err = await run(kubectl, config, "exec", "web", "--", "fail")
    assert code == 1
    assert b"container is not running" in err


async def test_exec_echoes_much_input(kubectl: Path, config: Path) -> None:
    data = LINE * 2048
    code, out, err = await run(kubectl, config, "exec", "-i", "web", "--", "cat", data=data)
    assert (code, err, out == data) == (0, b"", True)


async def test_exec_writes_much_output(kubectl: Path, config: Path) -> None:
    code, out, _ = await run(kubectl, config, "exec", "web", "--", "big", "16384")
    assert (code, len(out), out == LINE * 16384) == (0, 16 << 20, True)


async def test_a_killed_client_ends_the_command(kubectl: Path, config: Path, nodes: FakeNodes) -> None:
    process = await start(kubectl, config, "exec", "web", "--", "hang")
    await asyncio.wait_for(nodes.started.wait(), 20)
    process.kill()
    await process.communicate()
    await asyncio.wait_for(nodes.cancelled.wait(), 10)


async def test_attach_echoes_input(kubectl: Path, config: Path, nodes: FakeNodes) -> None:
    code, out, _ = await run(kubectl, config, "attach", "-i", "web", data=b"hello\n")
    assert (code, out) == (0, b"hello\n")
    assert nodes.calls == [("web", "app", (), True)]


async def test_a_terminal_tells_its_size(kubectl: Path, config: Path) -> None:
    script = f"stty cols 91 rows 33; exec {kubectl} --kubeconfig={config} exec -it web -- size"
    process = await asyncio.create_subprocess_exec(
        "script", "-qec", script, "/dev/null", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    out = await asyncio.wait_for(process.stdout.read(), 30)
    assert b"91x33" in out
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


async def test_port_forward_carries_bytes_both_ways(kubectl: Path, config: Path) -> None:
    process = await start(kubectl, config, "port-forward", "pod/web", ":9", ":1")
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        local: dict[int, int] = {}
        while len(local) < 2:
            line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
            if "127.0.0.1" in line:
                local[int(line.split()[-1])] = int(line.split("127.0.0.1:")[1].split()[0])
        data = LINE * 1024
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", local[9])
            writer.write(data)
            assert await asyncio.wait_for(reader.readexactly(len(data)), 20) == data
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            await writer.wait_closed()
        reader, writer = await asyncio.open_connection("127.0.0.1", local[1])
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        told = await asyncio.wait_for(process.stderr.readline(), 20)
        assert b"error forwarding port 1 to pod web_default, uid u1: nothing listens" in told
    finally:
        # The new one ends by itself after an error of a forwarded port.
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_logs_are_printed_and_followed(kubectl: Path, config: Path, nodes: FakeNodes) -> None:
    assert await run(kubectl, config, "logs", "web", "--tail=5") == (0, b"first line\n", b"")
    assert nodes.log_options["tailLines"] == 5
    process = await start(kubectl, config, "logs", "-f", "web")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"first line\n"
    nodes.more_log.set()
    assert await asyncio.wait_for(process.stdout.read(), 20) == b"second line\n"
    assert await process.wait() == 0
    await process.communicate()


@pytest.mark.usefixtures("through_a_kubelet")
async def test_commands_run_on_a_node_with_a_kubelet(kubectl: Path, config: Path, nodes: FakeNodes) -> None:
    data = LINE * 1024
    assert await run(kubectl, config, "exec", "-i", "web", "--", "cat", data=data) == (0, data, b"")
    code, _, err = await run(kubectl, config, "exec", "web", "--", "exit", "3")
    assert (code, err) == (3, b"command terminated with exit code 3\n")
    assert nodes.calls == [("web", "app", ("cat",), False), ("web", "app", ("exit", "3"), False)]
    assert await run(kubectl, config, "logs", "web") == (0, b"first line\n", b"")


@pytest.mark.usefixtures("through_a_kubelet")
async def test_ports_are_forwarded_through_a_kubelet(kubectl: Path, config: Path) -> None:
    process = await start(kubectl, config, "port-forward", "pod/web", ":9")
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        local = int(line.split("127.0.0.1:")[1].split()[0])
        data = LINE * 1024
        reader, writer = await asyncio.open_connection("127.0.0.1", local)
        writer.write(data)
        assert await asyncio.wait_for(reader.readexactly(len(data)), 20) == data
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        await writer.wait_closed()
    finally:
        process.kill()
        await process.communicate()
