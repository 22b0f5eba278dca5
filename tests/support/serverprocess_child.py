"""The API server as `pilothouse apiserver` runs it, with a line of commands: `compact`, and `fill COUNT`.

Run as `python -m support.serverprocess_child DIRECTORY PORT`. Each line of standard output is a report: `ready`, and
`done` after a command. It is there to be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time

from pilothouse.apiserver.http import InProcessTransport
from pilothouse.apiserver.model import User
from pilothouse.apiserver.program import Program, ProgramOptions
from pilothouse.foundation import logs
from pilothouse.kinds.status import AlreadyExists
from pilothouse.store.errors import Compacted
from pilothouse.testing.caller import Caller

MAPS = "/api/v1/namespaces/default/configmaps"
_TOGETHER = 32
_SHARE = 0.6
"""Of one processor, so that what runs beside it gets its part."""


def report(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def compact(program: Program) -> None:
    revision = program.server.cacher.revision
    with contextlib.suppress(Compacted):
        await program.server.store.compact(revision)
    program.server.cacher.compacted(revision)


async def fill(program: Program, count: int) -> None:
    """Make config maps m0 and so on."""
    caller = Caller(InProcessTransport(program.server.handle), User("admin", groups=("system:masters",)))
    began, used = time.monotonic(), time.process_time()

    async def make(number: int) -> None:
        with contextlib.suppress(AlreadyExists):
            await caller.call("POST", MAPS, {"metadata": {"name": f"m{number}"}, "data": {"v": "0"}})

    for start in range(0, count, _TOGETHER):
        await asyncio.gather(*(make(number) for number in range(start, min(start + _TOGETHER, count))))
        spare = (time.process_time() - used) / _SHARE - (time.monotonic() - began)
        if spare > 0:
            await asyncio.sleep(spare)


async def main(directory: str, port: int) -> None:
    logs.configure(level="error")
    program = await Program.start(ProgramOptions(data_dir=directory, port=port))
    report("ready")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode().split():
        if line[0] == "compact":
            await compact(program)
        else:
            await fill(program, int(line[1]))
        report("done")
    await program.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
