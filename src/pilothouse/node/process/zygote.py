"""The process that keepers are forked of: everything is loaded once, and its memory is shared by all of them.

`python -m pilothouse.node.process.zygote FD ROOT`: requests come over the socket FD; ROOT, the runtime's directory,
stands there so that keepers of a runtime can be told in the process table. It ends with the agent; keepers do not.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys as python

from . import syscalls as sys
from . import wire
from .keeper import keep
from .spec import SandboxSpec, read_file

__all__ = ["MODULE", "main"]

MODULE = "pilothouse.node.process.zygote"


def main(arguments: list[str]) -> int:
    """Serve forks until the agent is gone."""
    agent = socket.socket(fileno=int(arguments[0]))
    sys.set_name("ph-zygote")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.umask(0o022)
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


def _be_keeper(agent: socket.socket, path: str, fd: int) -> None:
    try:
        agent.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.set_name("ph-keeper")
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
