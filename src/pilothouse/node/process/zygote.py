"""The process that keepers are forked of: everything is loaded once, and its memory is shared by all of them.

`python -m pilothouse.node.process.zygote FD ROOT`: requests come over the socket FD; ROOT, the runtime's directory,
stands there so that keepers of a runtime can be told in the process table. It ends with the agent; keepers do not.
"""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import selectors
import signal
import socket
import sys as python

import msgspec

from pilothouse.node.config import Mount

from . import syscalls as sys
from . import wire
from .crilog import LineFormatter
from .keeper import keep
from .spec import (
    ContainerRecord,
    ContainerSpec,
    ExecSpec,
    KeeperRecord,
    NetworkSpec,
    RootSpec,
    SandboxSpec,
    boot_id,
    process_start,
    read_file,
)

__all__ = ["KEEPER_NAME", "MODULE", "main"]

MODULE = "pilothouse.node.process.zygote"
KEEPER_NAME = "ph-keeper"


_SCORE = "-998"


def main(arguments: list[str]) -> int:
    """Serve forks until the agent is gone."""
    agent = socket.socket(fileno=int(arguments[0]))
    sys.set_name("ph-zygote")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.umask(0o022)
    # Without it the kernel may choose what keeps a pod instead of what is in it.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(_SCORE)
    _warm_up()
    gc.disable()
    gc.collect()
    gc.freeze()
    wire.send(agent, {"ready": os.getpid()})
    while True:
        got = wire.receive(agent)
        if got is None:
            return 0
        message, fds = got
        try:
            pid = os.fork()
        except OSError as error:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fds[0])) as first:
                wire.send(first, {"error": f"fork: {error.strerror}"})
            pid = -1
        if pid == 0:
            _be_keeper(agent, str(message["spec"]), fds[0])
        for fd in fds:
            os.close(fd)


def _warm_up() -> None:
    """Do once what each keeper does at its start, so that what it makes for that is shared."""
    sandbox = SandboxSpec(
        id="x",
        directory="/",
        mode="plain",
        network=NetworkSpec(address="10.0.0.2", prefix=24, gateway="10.0.0.1", bridge="b", veth="v"),
    )
    mount = Mount(container_path="/x")
    container = ContainerSpec(id="x", directory="/", argv=("x",), root=RootSpec(type="none"), mounts=(mount,))
    records = (KeeperRecord(pid=1, started_ticks=1, boot_id=""), ContainerRecord(id="x"), ExecSpec(argv=("x",)))
    for value in (sandbox, container, *records):
        msgspec.json.decode(msgspec.json.encode(value), type=type(value))
        msgspec.convert(msgspec.to_builtins(value), type=type(value))
    LineFormatter("stdout").feed(b"x\n", 0)
    str(ipaddress.ip_interface("10.0.0.2/24").network.broadcast_address)
    one, two = wire.pair()
    with one, two, selectors.DefaultSelector() as selector:
        selector.register(two, selectors.EVENT_READ, None)
        wire.send(one, {"id": 1, "op": "x"}, [one.fileno()])
        selector.select()
        for fd in (wire.receive(two) or ({}, []))[1]:
            os.close(fd)
    process_start(os.getpid())
    boot_id()


def _be_keeper(agent: socket.socket, path: str, fd: int) -> None:
    try:
        agent.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.set_name(KEEPER_NAME)
        first = socket.socket(fileno=fd)
        try:
            spec = read_file(path, SandboxSpec)
        except (OSError, ValueError) as error:
            wire.send(first, {"error": str(error)})
            return
        keep(spec, first)
    finally:
        os._exit(1)


if __name__ == "__main__":
    python.exit(main(python.argv[1:]))
