"""The demo's own platform: `pilothouse up` in a directory that goes away again, beside whatever else runs here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from pilothouse.foundation.rights import owns_network
from pilothouse.foundation.terminal import CommandError, ExitCode
from pilothouse.platform.state import read_state

__all__ = ["Platform", "Share", "cancelled_by_signals", "claimed_share", "free_port"]

_SHARES: Final = 64
_CLAIM_PORT: Final = 40_404
_START_SECONDS: Final = 60.0
_DOWN_SECONDS: Final = 60.0
_LOG_LINES: Final = 5


class Share(NamedTuple):
    """What of this machine one demo has for itself, by its number: several may run at once."""

    number: int

    def options(self, *, is_root: bool) -> list[str]:
        """Return the options of `pilothouse up` that keep it apart from other platforms.

        Root's addresses are of 198.18.0.0/15, which no network has (RFC 2544), others' are loopback.
        """
        if is_root:
            pods, services = f"198.18.{4 * self.number}.0/22", f"198.19.{4 * self.number}.0/22"
        else:
            pods, services = f"127.{128 + self.number}.0.0/17", f"127.{128 + self.number}.128.0/17"
        first = 24_000 + 16 * self.number
        return [
            f"--bridge=phdemo{self.number}",
            f"--cluster-cidr={pods}",
            f"--service-cluster-ip-range={services}",
            f"--service-node-port-range={first}-{first + 15}",
        ]

    @property
    def gateways(self) -> str:
        """Addresses of loopback for Gateways of its own."""
        return f"127.91.{self.number}.0/24"


@contextlib.contextmanager
def claimed_share() -> Iterator[Share]:
    """Give a share that nobody else has, until the block ends. Raises CommandError where there is none."""
    for step in range(_SHARES):
        number = (os.getpid() + step) % _SHARES
        if os.path.exists(f"/sys/class/net/phdemo{number}"):
            continue  # of a demo that was killed
        claim = socket.socket()
        try:
            claim.bind((f"127.{128 + number}.255.254", _CLAIM_PORT))
        except OSError:
            claim.close()
            continue
        with claim:
            yield Share(number)
            return
    raise CommandError(
        f"there are {_SHARES} demos on this machine, or bridges that they left",
        hint="ip link show type bridge",
        code=ExitCode.CONFLICT,
    )


class Platform:
    """A platform of its own processes, ports, addresses and directory."""

    def __init__(self, share: Share) -> None:
        self.share: Final = share
        # Those of pods that are other users have to get through it.
        self.directory: Final = Path(tempfile.mkdtemp(prefix="pilothouse-demo-"))
        self.data: Final = self.directory / "platform"
        self.kubeconfig: Final = self.data / "admin.kubeconfig"
        self._log = self.directory / "log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *options: str) -> None:
        """Start it, with more options of `up`, and wait until all its parts are ready. Raises CommandError."""
        command = [
            "up", "--data-dir", str(self.data), "--listen", f"127.0.0.1:{free_port()}", "--log-level", "warning",
            *self.share.options(is_root=owns_network()), *options,
        ]  # fmt: skip
        with open(self._log, "wb") as log:  # noqa: ASYNC230  # small and local
            # A session of its own: Ctrl-C is for the demo, which ends everything in good order.
            self._process = await asyncio.create_subprocess_exec(
                *_PILOTHOUSE, *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None  # noqa: S101  # piped above
        try:
            async with asyncio.timeout(_START_SECONDS):
                while line := await self._process.stdout.readline():
                    if line.startswith(b"ready"):
                        return
        except TimeoutError:
            raise CommandError(f"the platform was not ready within {_START_SECONDS:g} s", hint=self.told()) from None
        raise CommandError("the platform did not start", hint=self.told())

    def process_of(self, part: str) -> int:
        """Return the process of a part. Raises CommandError."""
        state = read_state(str(self.data))
        if state is None or part not in state.parts or not state.parts[part].pid:
            raise CommandError(f"the platform does not say which process its {part} is", hint=self.told())
        return state.parts[part].pid

    def told(self) -> str:
        """Return the last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:])
        return ""

    async def remove(self) -> None:
        """End it with all pods and remove all that it has made. Raises CommandError where something is left."""
        down = await asyncio.create_subprocess_exec(
            *_PILOTHOUSE, "down", "--data-dir", str(self.data), "--timeout", "20s",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        said = b""
        try:
            async with asyncio.timeout(_DOWN_SECONDS):
                said, _ = await down.communicate()
        except TimeoutError:
            down.kill()
            await down.wait()
        await self._end()
        if down.returncode:
            raise CommandError(
                f"something of the demo is left: {said.decode(errors='replace').strip() or 'down took too long'}",
                hint=f"pilothouse down --data-dir {self.data}",
            )
        await asyncio.to_thread(shutil.rmtree, self.directory)

    async def _end(self) -> None:
        """See to it that the supervisor is gone; `down` has asked it to go."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


_PILOTHOUSE: Final = (sys.executable, "-m", "pilothouse")


def free_port() -> int:
    """Return a port that nobody has now; its own one, for a server that starts again has to be found there."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def cancelled_by_signals() -> Iterator[asyncio.Event]:
    """Have SIGINT and SIGTERM cancel this task, once; not any more when the event is set."""
    loop, task, ending = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()

    def told() -> None:
        if ending.is_set() or task is None:
            click.echo("taking everything down; one moment", err=True)
            return
        ending.set()
        task.cancel()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, told)
    try:
        yield ending
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
