"""Pods reach other networks under the machine's address. It runs in a network namespace that stands for the machine."""

from __future__ import annotations

import shutil
import subprocess
import sys

import msgspec
import pytest

from support.nodekit import NEEDS_ROOT, place

pytestmark = [
    NEEDS_ROOT,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft not found: install Debian's nftables"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="ip not found: install Debian's iproute2"),
]

PROGRAM = """
import asyncio, os, socket, subprocess, sys
import msgspec
from pilothouse.node.config import *
from pilothouse.node.process import syscalls
from pilothouse.node.process.netlink import Netlink, link_index
from pilothouse.node.process.options import Options
from pilothouse.node.process.runtime import ProcessRuntime

def outside():
    # Another network beside the machine: it knows no way to the pods.
    machine = os.open("/proc/self/ns/net", os.O_RDONLY)
    near = Netlink()
    syscalls.unshare(syscalls.CLONE_NEWNET)
    far = Netlink()
    far.add_veth("far0", "near0", machine, 1500)
    far.add_address(link_index("far0"), "192.0.2.1", 24)
    far.up(link_index("far0"))
    server = socket.create_server(("192.0.2.1", 80))
    syscalls.setns(machine, syscalls.CLONE_NEWNET)
    near.up(link_index("lo"))
    near.add_address(link_index("near0"), "192.0.2.2", 24)
    near.up(link_index("near0"))
    return server

async def main():
    server = outside()
    runtime = ProcessRuntime(msgspec.json.decode(sys.argv[1], type=Options))
    await runtime.start()
    print((await runtime.status()).missing, file=sys.stderr)
    pod = await runtime.run_sandbox(SandboxConfig(metadata=SandboxMetadata(name="p", uid="p"), hostname="p"))
    script = "import socket; s = socket.create_connection(('192.0.2.1', 80), 20); s.recv(1)"
    one = await runtime.create_container(pod, ContainerConfig(metadata=ContainerMetadata(name="c"), image="host",
                                                              command=("/usr/bin/env", "python3", "-c", script)))
    await runtime.start_container(one)
    server.settimeout(20)
    connection, peer = await asyncio.to_thread(server.accept)
    connection.close()
    print(peer[0])
    await runtime.dismantle()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert "pilothouse" not in tables, tables

asyncio.run(main())
"""


async def test_pods_go_out_under_the_machines_address() -> None:
    async with place() as made:
        options = msgspec.structs.replace(made.options, masquerade=True)
        command = ["unshare", "-n", sys.executable, "-c", PROGRAM, msgspec.json.encode(options).decode()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)  # noqa: ASYNC221  # alone
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout == "192.0.2.2\n"
