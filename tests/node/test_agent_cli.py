"""`pilothouse node`: programs of their own, against a served control plane."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from pilothouse.node import clear
from pilothouse.node.cli import node
from pilothouse.testing import ControlPlane
from support.nodekit import NEEDS_ROOT, eventually, place

PODS = "/api/v1/namespaces/default/pods"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/one"
PATIENCE = 60.0


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pilothouse", "node", *arguments, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ends(process: asyncio.subprocess.Process) -> int:
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        return await process.wait()


async def test_simulated_nodes_come_run_pods_and_go() -> None:
    async with ControlPlane() as plane:
        arguments = ("simulate", "--kubeconfig", plane.kubeconfig, "--count", "3", "--start-seconds", "0", "--remove")
        async with program(*arguments) as process:
            await plane.wait_for("/api/v1/nodes/sim-2", timeout=PATIENCE)
            spec: dict[str, Any] = {"nodeName": "sim-2", "containers": [{"name": "main", "image": "app:1"}]}
            await plane.call("POST", PODS, {"metadata": {"name": "web"}, "spec": spec})
            await plane.wait_for(f"{PODS}/web", lambda each: each["status"]["phase"] == "Running", timeout=PATIENCE)
            assert await ends(process) == 0
        assert (await plane.call("GET", "/api/v1/nodes"))["items"] == []


@NEEDS_ROOT
async def test_a_node_runs_pods_that_outlive_it() -> None:
    async with place() as made, ControlPlane() as plane:
        root = made.options.root
        arguments = ("run", "--kubeconfig", plane.kubeconfig, "--name", "one", "--address", "127.0.0.1")
        paths = ("--data-dir", os.path.dirname(root), "--bridge", made.name, "--pod-cidr", made.options.pod_cidr)
        spec: dict[str, Any] = {
            "nodeName": "one",
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", "image": "host", "imagePullPolicy": "Never", "command": ["sleep", "60"]}],
        }
        ids: list[str] = []
        renewed = ""
        for _ in range(2):
            async with program(*arguments, *paths) as process:
                if not ids:
                    await plane.call("POST", PODS, {"metadata": {"name": "web"}, "spec": spec})
                lease = await plane.wait_for(LEASE, functools.partial(_renewed_since, renewed), timeout=PATIENCE)
                renewed = _renewed(lease)
                found = await plane.wait_for(
                    f"{PODS}/web", lambda each: each["status"]["phase"] == "Running", timeout=PATIENCE
                )
                ids.append(found["status"]["containerStatuses"][0]["containerID"])
                assert await ends(process) == 0
        assert ids[0] == ids[1]
        await clear(
            msgspec.structs.replace(made.options, root=f"{os.path.dirname(root)}/runtime", cgroup_prefix=""),
            grace=0,
            tables=(),
            addresses=(),
            cluster_cidr=made.options.pod_cidr,
        )


@NEEDS_ROOT
@pytest.mark.parametrize("begun", ["", "runtime/lock", "runtime/zygote.log", "agent/pki", "agent/logs"])
async def test_a_node_that_is_told_to_stop_while_it_starts_ends_well(begun: str) -> None:
    async with place() as made, ControlPlane() as plane:
        directory = os.path.join(made.directory, "data")
        arguments = ("run", "--kubeconfig", plane.kubeconfig, "--name", "one", "--address", "127.0.0.1", "--port", "0")
        paths = ("--data-dir", directory, "--bridge", made.name, "--pod-cidr", made.options.pod_cidr)
        async with program(*arguments, *paths) as process:
            await eventually(lambda: os.path.exists(os.path.join(directory, begun)))
            assert await ends(process) == 0
        options = msgspec.structs.replace(made.options, root=os.path.join(directory, "runtime"), cgroup_prefix="")
        await clear(options, tables=(), addresses=(), cluster_cidr=made.options.pod_cidr)
        assert made.name not in os.listdir("/sys/class/net")


@NEEDS_ROOT
async def test_a_node_has_the_addresses_that_it_says_or_does_not_start() -> None:
    async with place() as made, ControlPlane() as plane:
        cidr = "10.123.4.0/24"
        node_body = {"kind": "Node", "metadata": {"name": "one"}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}
        await plane.call("POST", "/api/v1/nodes", node_body)
        directory = os.path.join(made.directory, "data")
        arguments = ("run", "--kubeconfig", plane.kubeconfig, "--name", "one", "--address", "127.0.0.1", "--port", "0")
        async with program(*arguments, "--data-dir", directory, "--pod-cidr", "10.123.5.0/24") as process:
            async with asyncio.timeout(PATIENCE):
                _, errors = await process.communicate()
            assert process.returncode == 1
            assert b"node one has spec.podCIDR 10.123.4.0/24" in errors


def _renewed_since(moment: str, lease: dict[str, Any] | None) -> bool:
    return _renewed(lease) > moment


def _renewed(lease: dict[str, Any] | None) -> str:
    return str(lease["spec"]["renewTime"]) if lease else ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "--label", "color"], "--label color: want NAME=VALUE"),
        (["run", "--reserved-memory", "much"], "--reserved-memory: quantities must match"),
        (["simulate", "--count", "0"], "--count"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], text: str) -> None:
    done = CliRunner().invoke(node, arguments)
    assert done.exit_code != 0
    assert text in done.output + str(done.exception)
