"""Agent, keepers and zygote are killed: pods run on or are told to be gone, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap

from pilothouse.node.config import NamespaceOptions, SecurityContext
from pilothouse.node.runtime import SandboxStatus
from support.nodekit import (
    NEEDS_ROOT,
    Place,
    container,
    eventually,
    leftovers,
    logged_lines,
    place,
    sandbox,
    until_exited,
)

pytestmark = NEEDS_ROOT

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
        pod = await runtime.run_sandbox(SandboxConfig(metadata=SandboxMetadata(name=name, uid=name), hostname=name,
            log_directory=sys.argv[2], cgroup_parent=f"/kubepods/pod{name}"))
        one = await runtime.create_container(pod, ContainerConfig(metadata=ContainerMetadata(name="c"), image="host",
            command=("/bin/sleep", "1000"), log_path=f"{name}.log"))
        await runtime.start_container(one)
        print(pod, flush=True)
        if number % 3 == 0:
            await runtime.remove_sandbox(pod)

asyncio.run(main())
"""


async def test_containers_outlive_the_agent_and_are_adopted() -> None:
    async with place() as made:
        first = await made.runtime()
        pod = await first.run_sandbox(sandbox(made))
        ticking = await first.create_container(pod, container("i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"))
        ending = await first.create_container(
            pod, container("while ! test -e /dev/shm/go; do sleep 0.02; done; exit 6", name="e")
        )
        for one in (ticking, ending):
            await first.start_container(one)
        before = await first.container_status(ticking)
        await first.close()
        count = len(logged_lines(made))
        await eventually(lambda: len(logged_lines(made)) > count)
        second = await made.runtime()
        after = await second.container_status(ticking)
        assert (after.state, after.pid, after.started_at) == ("Running", before.pid, before.started_at)
        assert (await second.sandbox_status(pod)).state == "Ready"
        assert (await second.exec_sync(ticking, ["/bin/sh", "-c", "touch /dev/shm/go"])).exit_code == 0
        assert (await until_exited(second, ending)).exit_code == 6


async def test_pods_whose_containers_share_processes_are_adopted_whole() -> None:
    async with place() as made:
        first = await made.runtime()
        shared = SecurityContext(namespaces=NamespaceOptions(pid="Pod"))
        pod = await first.run_sandbox(sandbox(made, security=shared))
        one = await first.create_container(pod, container("sleep 1000", security=shared))
        await first.start_container(one)
        for _ in range(2):
            await first.close()
            first = await made.runtime()
            assert (await first.container_status(one)).state == "Running"
            assert (await first.exec_sync(one, ["/bin/true"])).exit_code == 0
        two = await first.create_container(pod, container("exit 3", name="two", security=shared))
        await first.start_container(two)
        assert (await until_exited(first, two)).exit_code == 3


async def test_a_keeper_that_let_go_of_the_agent_is_met_again() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pod = await runtime.run_sandbox(sandbox(made))
        one = await runtime.create_container(pod, container("sleep 1000"))
        await runtime.start_container(one)
        link = runtime._all.pods[pod].link
        assert link is not None
        link._socket.shutdown(socket.SHUT_RDWR)
        await eventually(lambda: link.closed and runtime._all.pods[pod].link is not link)
        assert (await runtime.sandbox_status(pod)).state == "Ready"
        assert (await runtime.container_status(one)).state == "Running"
        assert (await runtime.exec_sync(one, ["/bin/true"])).exit_code == 0


async def test_what_a_runtime_dismantles_is_its_own_alone() -> None:
    async with place() as made, place() as other:
        stays, goes = await made.runtime(cgroup_prefix=""), await other.runtime(cgroup_prefix="")
        pod = await stays.run_sandbox(sandbox(made, made.name))
        one = await stays.create_container(pod, container("sleep 1000"))
        await stays.start_container(one)
        await goes.run_sandbox(sandbox(other, other.name))
        waits = await stays.create_container(pod, container("exit 4", name="waits"))
        await goes.dismantle()
        await stays.start_container(waits)  # whose groups were empty meanwhile
        assert (await until_exited(stays, waits)).exit_code == 4
        assert (await stays.exec_sync(one, ["/bin/true"])).exit_code == 0
        assert (await stays.sandbox_status(pod)).state == "Ready"
        await stays.remove_sandbox(pod)


async def test_an_exit_while_nobody_looks_is_known_later() -> None:
    async with place() as made:
        first = await made.runtime()
        pod = await first.run_sandbox(sandbox(made))
        one = await first.create_container(pod, container("read x; exit 7", stdin=True))
        await first.start_container(one)
        pid = (await first.container_status(one)).pid
        await first.close()
        assert pid
        os.kill(pid, signal.SIGKILL)
        second = await made.runtime()
        status = await until_exited(second, one)
        assert (status.exit_code, status.signal) == (137, 9)


async def test_a_keepers_death_ends_its_pod_only() -> None:
    async with place() as made:
        runtime = await made.runtime()
        pods = [await runtime.run_sandbox(sandbox(made, f"p{number}")) for number in range(2)]
        ones = []
        for number, pod in enumerate(pods):
            one = await runtime.create_container(pod, container("sleep 1000 & sleep 1000", name=f"c{number}"))
            await runtime.start_container(one)
            ones.append(one)
        status = await runtime.sandbox_status(pods[0])
        inner = (await runtime.container_status(ones[0])).pid
        assert status.pid
        os.kill(status.pid, signal.SIGKILL)
        ended = await until_exited(runtime, ones[0])
        assert (ended.exit_code, ended.reason) == (137, "ContainerStatusUnknown")
        await eventually(lambda: not _alive(inner))
        assert (await runtime.sandbox_status(pods[0])).state == "NotReady"
        assert (await runtime.container_status(ones[1])).state == "Running"
        await runtime.remove_sandbox(pods[0])
        with contextlib.suppress(StopIteration):
            assert [found.id for found in await runtime.list_sandboxes()] == pods[1:]


async def test_a_new_zygote_comes_for_a_dead_one() -> None:
    async with place() as made:
        runtime = await made.runtime()
        first = await runtime.run_sandbox(sandbox(made, "first"))
        one = await runtime.create_container(first, container("sleep 1000"))
        await runtime.start_container(one)
        zygote = runtime._all.zygote.pid
        assert zygote
        os.kill(zygote, signal.SIGKILL)
        second = await runtime.run_sandbox(sandbox(made, "second"))
        assert runtime._all.zygote.pid != zygote
        two = await runtime.create_container(second, container("echo fine", name="two"))
        await runtime.start_container(two)
        assert (await until_exited(runtime, two)).exit_code == 0
        assert (await runtime.container_status(one)).state == "Running"


async def test_a_keeper_that_dies_between_agents_is_noticed() -> None:
    async with place() as made:
        first = await made.runtime()
        pod = await first.run_sandbox(sandbox(made))
        one = await first.create_container(pod, container("sleep 1000"))
        await first.start_container(one)
        keeper = (await first.sandbox_status(pod)).pid
        await first.close()
        assert keeper
        os.kill(keeper, signal.SIGKILL)
        second = await made.runtime()
        status = await second.container_status(one)
        assert (status.state, status.exit_code, status.reason) == ("Exited", 137, "ContainerStatusUnknown")
        assert (await second.sandbox_status(pod)).state == "NotReady"


async def test_kills_at_random_leave_nothing() -> None:
    chance = random.Random(7)
    async with place() as made:
        for _ in range(6):
            agent = _agent(made)
            assert agent.stdout is not None
            await asyncio.to_thread(agent.stdout.readline)
            await asyncio.sleep(chance.uniform(0, 0.4))
            victims = [agent.pid, *_children_of_agents(made)]
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself just now
                os.kill(chance.choice(victims), signal.SIGKILL)
            await asyncio.sleep(chance.uniform(0, 0.1))
            agent.kill()
            agent.communicate()
        runtime = await made.runtime()
        found: list[SandboxStatus] = list(await runtime.list_sandboxes())
        assert found, "no pod lived long enough: the test tests nothing"
        ready = [pod for pod in found if pod.state == "Ready"]
        for pod in ready:
            for one in await runtime.list_containers(pod.id):
                if one.state == "Running":
                    assert (await runtime.exec_sync(one.id, ["/bin/true"])).exit_code == 0
        for pod in found:
            await runtime.remove_sandbox(pod.id)
        await runtime.close()
        await eventually(lambda: not leftovers(made), lambda: str(leftovers(made)))


def _agent(made: Place) -> subprocess.Popen[bytes]:
    import msgspec

    command = [sys.executable, "-c", textwrap.dedent(AGENT), msgspec.json.encode(made.options).decode(), str(made.logs)]
    with (made.directory / "agent.log").open("ab") as log:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)


def _children_of_agents(made: Place) -> list[int]:
    from support.nodekit import _ours

    return sorted(_ours(made.options.root))


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
