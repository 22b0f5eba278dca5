"""The program of a worker: `python -m pilothouse.traffic.plane.process CONTROL SHARES LEAST`.

The first two are descriptors, LEAST is the size from which on bodies are spliced.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from pilothouse.traffic.changes import applied, replace
from pilothouse.traffic.config import Configuration
from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.messages import (
    MOST_BYTES,
    Body,
    Configure,
    Drain,
    FromWorker,
    Lines,
    Listen,
    Noted,
    NotTaken,
    Ready,
    Sampled,
    Shown,
    Taken,
    decode_to_worker,
    encode,
)
from pilothouse.traffic.plane.pools import endpoints_counted, endpoints_now
from pilothouse.traffic.plane.reactor import IN, Timed
from pilothouse.traffic.plane.sharing import FileCounters
from pilothouse.traffic.plane.wires import SPLICE_LEAST
from pilothouse.traffic.plane.worker import Worker

__all__ = ["Control", "main"]

_ROWS: Final = 500
_LINE_BYTES: Final = 96 << 10
_bodies: Final[msgspec.msgpack.Decoder[Body]] = msgspec.msgpack.Decoder(Body)


class Control(Timed):
    """The worker's end of its control socket; the worker ends with it."""

    def __init__(
        self,
        sock: socket.socket,
        shares: FileCounters | None = None,
        least: int = SPLICE_LEAST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        sock.setblocking(False)
        self._sock = sock
        self.worker = Worker(clock=clock, told=self._noted, shares=shares, splice_least=least)
        self._unsent: list[bytes] = []
        self._told_of: dict[EndpointState, tuple[int, int]] = {}
        self._number = 0
        """The push that was taken up last."""

    def start(self) -> None:
        """Listen to the parent."""
        reactor = self.worker.reactor
        reactor.register(self._sock.fileno(), self, IN)
        self._arm()
        self._send(Ready(os.getpid()))

    def on_event(self, events: int) -> None:
        del events
        for _ in range(64):
            try:
                packet, descriptors, _, _ = socket.recv_fds(self._sock, MOST_BYTES, 4)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            if not packet:
                self.worker.reactor.stop()  # the parent is gone
                return
            try:
                self._act(packet, descriptors)
            finally:
                for fd in descriptors:
                    with contextlib.suppress(OSError):
                        os.close(fd)

    def _act(self, packet: bytes, descriptors: list[int]) -> None:
        message = decode_to_worker(packet)
        if isinstance(message, Listen):
            self.worker.listen(socket.socket(fileno=os.dup(descriptors[0])), message.address, message.port)
        elif isinstance(message, Configure):
            self._configure(message, descriptors[0])
        elif isinstance(message, Drain):
            self.worker.drain(message.seconds, self._ended)
        else:
            self._show(message.number)

    def _show(self, number: int) -> None:
        worker = self.worker
        rows = endpoints_now(worker.pools.values(), worker.reactor.now)
        while len(rows) > _ROWS:
            self._send(Shown(number, rows[:_ROWS], False))
            del rows[:_ROWS]
        waiting = {name: pool.waiting for name, pool in worker.pools.items() if pool.waiting}
        self._send(Shown(number, rows, True, len(worker.clients), len(worker.tunnels), waiting))

    def _configure(self, message: Configure, fd: int) -> None:
        """Go on by a configuration, whole, at once: this is between two events."""
        worker, is_whole = self.worker, not message.base
        if not is_whole and message.base != self._number:
            self._send(Ready(os.getpid()))  # one was missed
            return
        try:
            change, slots = _bodies.decode(_read(fd))
            worker.workers = message.workers
            worker.take(applied(Configuration() if is_whole else worker.plan.configuration, change))
            worker.shares.assign(replace({} if is_whole else worker.shares.assigned, slots))
        except (ValueError, msgspec.MsgspecError) as error:
            self._send(NotTaken(message.number, str(error)))
        else:
            self._number = message.number
            self._send(Taken(message.number))
            if not gc.get_freeze_count():
                gc.collect()
                gc.freeze()  # once: what is frozen in the middle of requests would never be collected

    def _ended(self) -> None:
        self._tell(int(self.worker.reactor.now))
        self.worker.reactor.stop()

    def on_deadline(self) -> None:
        self._tell(int(self.worker.reactor.now) - 1)
        self._arm()

    def _arm(self) -> None:
        """Wake when the second is over: all workers' seconds are the same, so that the parent can add them up."""
        reactor = self.worker.reactor
        reactor.arm(self, float(int(reactor.now) + 1))

    def _tell(self, second: int) -> None:
        """Send what was counted; what the parent does not take now comes later."""
        worker = self.worker
        if not self._flush():
            return
        endpoints, self._told_of = endpoints_counted(worker.pools.values(), self._told_of)
        for numbers in worker.tally.take(len(worker.clients) + len(worker.tunnels), second, endpoints):
            self._send(numbers)
        if samples := worker.sampler.take():
            self._send(Sampled(samples))
        lines = worker.lines
        while lines:
            size, count = 0, 0
            for line in lines:
                size += len(line) + 5
                if size > _LINE_BYTES and count:
                    break
                count += 1
            self._send(Lines(lines[:count], worker.lost_lines))
            worker.lost_lines = 0
            del lines[:count]

    def _noted(self, event: str, facts: dict[str, str]) -> None:
        if len(self._unsent) < 100:
            self._send(Noted(event, facts))

    def _send(self, message: FromWorker) -> None:
        self._unsent.append(encode(message))
        self._flush()

    def _flush(self) -> bool:
        while self._unsent:
            try:
                self._sock.send(self._unsent[0])
            except BlockingIOError:
                return False
            except OSError:
                self.worker.reactor.stop()
                return False
            self._unsent.pop(0)
        return True

    def on_crash(self) -> None:
        """Go on: the next message may be better."""


def _read(fd: int) -> bytes:
    """Read a file whole without moving its offset, which other workers share."""
    size = os.fstat(fd).st_size
    parts, at = [], 0
    while at < size:
        parts.append(os.pread(fd, size - at, at))
        at += len(parts[-1])
    return b"".join(parts)


def main(arguments: list[str]) -> int:
    """Serve until the parent is gone or says that it is over."""
    sock = socket.socket(fileno=int(arguments[0]))
    os.set_inheritable(sock.fileno(), False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the terminal's signals are the parent's to act on
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    gc.set_threshold(50_000, 20, 100)
    with contextlib.suppress(ImportError):
        from setproctitle import setproctitle  # noqa: PLC0415  # an extra

        setproctitle("pilothouse gateway worker")
    control = Control(sock, FileCounters(int(arguments[1])), int(arguments[2]))
    control.start()
    control.worker.reactor.run()
    control.worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
