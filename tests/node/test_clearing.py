"""Clearing a node leaves nothing of it on the machine, whatever became of its agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from pilothouse.node.clearing import TABLES, clear, clear_node
from pilothouse.node.cli import node
from pilothouse.node.dns.loopback import change_loopback
from pilothouse.node.errors import RuntimeUnavailable
from pilothouse.node.process.cgroups import detect
from pilothouse.node.process.directory import stored_options
from pilothouse.node.process.marks import MachineNetwork, Route
from pilothouse.node.process.network import ensure_bridge
from pilothouse.node.process.options import Options
from pilothouse.node.process.runtime import ProcessRuntime
from support.netkit import NEEDS_NFT, network
from support.nodekit import (
    NEEDS_ROOT,
    Place,
    container,
    eventually,
    leftovers,
    logged_lines,
    place,
    sandbox,
    user_python,
)

GRACE = "io.kubernetes.pod.terminationGracePeriod"
SLEEP = f"sleep {1_000_000 + os.getpid()}"
AGENT = """
import asyncio, sys
import msgspec
from pilothouse.node.config import *
from pilothouse.node.process.options import Options
from pilothouse.node.process.runtime import ProcessRuntime

async def main():
    runtime = ProcessRuntime(msgspec.json.decode(sys.argv[1], type=Options))
    await runtime.start()
    number = 0
    while True:
        number += 1
        name = f"p{number}"
        pod = await runtime.run_sandbox(SandboxConfig(metadata=SandboxMetadata(name=name, uid=name)))
        one = await runtime.create_container(pod, ContainerConfig(metadata=ContainerMetadata(name="c"), image="host",
            command=("/bin/sh", "-c", "trap '' TERM; setsid SLEEP & SLEEP"),
            annotations={"io.kubernetes.pod.terminationGracePeriod": "0.05"}))
        await runtime.start_container(one)
        print(pod, flush=True)

asyncio.run(main())
""".replace("SLEEP", SLEEP)
CLEAR = """
import asyncio, sys
import msgspec
from pilothouse.node.clearing import clear
from pilothouse.node.process.options import Options
print(asyncio.run(clear(msgspec.json.decode(sys.argv[1], type=Options), tables=(), addresses=())).pods)
"""


def program(text: str, options: Options, python: list[str]) -> subprocess.Popen[bytes]:
    command = [*python, "-c", text, msgspec.json.encode(options).decode()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/")


def groups(made: Place) -> list[str]:
    return [path for path in detect(made.name).directories("/").values() if os.path.exists(path)]


def of_directory(directory: str) -> list[str]:
    """Return the commands of processes that are this test's sleepers or of a runtime in a directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if SLEEP in words or ("process.zygote" in words and directory in words):
                found.append(f"{pid} {words}")
    return found


@NEEDS_ROOT
async def test_containers_end_by_their_own_signal_side_by_side() -> None:
    async with place() as made:
        runtime = await made.runtime()
        for name in ("one", "two"):
            pod = await runtime.run_sandbox(sandbox(made, name))
            script = "trap 'echo bye; exit' INT; echo up; while :; do sleep 0.05; done"
            config = container(script, name=name, stop_signal="SIGINT")
            await runtime.start_container(await runtime.create_container(pod, config))
        stubborn = container(
            "trap '' TERM; echo up; while :; do sleep 0.05; done", name="stubborn", annotations={GRACE: "0.3"}
        )
        await runtime.start_container(await runtime.create_container(pod, stubborn))
        await eventually(lambda: all(logged_lines(made, name) for name in ("one", "two", "stubborn")))
        with pytest.raises(RuntimeUnavailable, match="used by another agent"):
            await clear(made.options, tables=(), addresses=())
        await runtime.close()
        done = await clear(made.options, tables=(), addresses=())
        assert (done.pods, done.problems) == (2, ())
        assert [logged_lines(made, name) for name in ("one", "two")] == [["up", "bye"], ["up", "bye"]]
        assert leftovers(made) == groups(made) == []
        assert done.removed == (f"bridge {made.name}",)
        assert (await clear(made.options, tables=(), addresses=())).pods == 0


@NEEDS_ROOT
async def test_nothing_is_left_when_all_are_killed_at_any_moment() -> None:
    chance = random.Random(11)
    async with place() as made:
        for _ in range(4):
            running = program(AGENT, made.options, [sys.executable])
            assert running.stdout is not None
            await asyncio.to_thread(running.stdout.readline)
            await asyncio.sleep(chance.uniform(0, 0.3))
            running.kill()
            running.communicate()
            clearing = program(CLEAR, made.options, [sys.executable])
            await asyncio.sleep(chance.uniform(0.2, 0.6))
            clearing.kill()
            clearing.communicate()
            await clear(made.options, tables=(), addresses=())
            assert leftovers(made) == groups(made) == []
            assert made.name not in os.listdir("/sys/class/net")


async def test_an_ordinary_user_clears_too() -> None:
    with tempfile.TemporaryDirectory(prefix="pht") as name:
        os.chmod(name, 0o777)
        python = user_python(Path(name))
        if python is None:
            pytest.skip("no interpreter that an ordinary user may run")
        options = Options(root=f"{name}/node")
        running = program(AGENT, options, python)
        assert running.stdout is not None
        for _ in range(2):
            assert await asyncio.to_thread(running.stdout.readline)
        running.kill()
        running.communicate()
        assert any(SLEEP in each for each in of_directory(name))
        clearing = program(CLEAR, options, python)
        assert int((await asyncio.to_thread(clearing.communicate))[0]) >= 2
        await eventually(lambda: not of_directory(name), lambda: str(of_directory(name)))
        assert os.listdir(f"{options.root}/pods") == os.listdir(f"{options.root}/addresses") == []


@NEEDS_NFT
def test_the_machine_is_as_it_was() -> None:
    with network(), tempfile.TemporaryDirectory(prefix="pht") as directory:
        before = _state()
        runtime = ProcessRuntime(Options(root=f"{directory}/runtime", bridge="phclear", pod_cidr="10.97.0.0/24"))
        secret = Path(directory) / "agent/pods/some-uid/volumes/kubernetes.io~secret/s/key"
        kept = Path(directory) / "agent/pods/some-uid/volumes/kubernetes.io~empty-dir/e/file"
        for path in (secret, kept):
            path.parent.mkdir(parents=True)
            path.write_text("x")

        async def run() -> None:
            await runtime.start()
            await runtime.close()

        asyncio.run(run())
        change_loopback("10.96.0.10", add=True)
        with contextlib.closing(MachineNetwork()) as made:
            made.put_route(Route("10.97.7.0/24", "192.168.77.9"))
        for table in TABLES:
            subprocess.run(["nft", "add", "table", "ip", table], check=True)
        assert len(_state() - before) == 7  # address and route of the bridge, address, route, three tables
        done = CliRunner().invoke(node, ["clear", "--data-dir", directory])
        assert done.exit_code == 0, done.output
        assert "removed: address 10.96.0.10 of lo" in done.output
        assert _state() == before
        assert kept.exists()
        assert not secret.exists()
        assert stored_options(f"{directory}/runtime") is not None
        assert asyncio.run(clear_node(directory)).removed == ()


@NEEDS_NFT
def test_a_bridge_with_links_of_others_stays() -> None:
    with network() as made, tempfile.TemporaryDirectory(prefix="pht") as directory:
        from pilothouse.node.process.ipam import AddressPool

        ensure_bridge("phshare", AddressPool(f"{directory}/a", "10.98.0.0/24"), 1500)
        made.pod("other", "10.98.0.9", bridge="phshare", gateway="10.98.0.1")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pilothouse.node.clearing._PORTS_SECONDS", 0.1)
            done = asyncio.run(clear(Options(root=f"{directory}/none", bridge="phshare")))
        assert done.problems == ("bridge phshare stays: 1 links of others are in it",)
        assert "phshare" in "".join(_state())


def _state() -> set[str]:
    """Return addresses, routes and tables of this network namespace."""
    found: set[str] = set()
    for command in (["ip", "-o", "addr"], ["ip", "route"], ["nft", "list", "tables"]):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found |= {line.partition("\\")[0].strip() for line in done.stdout.splitlines() if "inet6" not in line}
    return found
