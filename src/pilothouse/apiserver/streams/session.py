"""One exec or attach, whatever carries it: runs it on the node and tells the client how it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import msgspec

from pilothouse.apiserver.ports import NodeStreams, Object
from pilothouse.apiserver.streams.inbox import Inbox
from pilothouse.apiserver.streams.podoptions import ExecOptions
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, internal_error

__all__ = ["LINGER_SECONDS", "Session", "finish", "linger", "status_bytes", "stop", "until_either"]

LINGER_SECONDS: Final = 10.0
"""How long a client may take to read the end before its connection is closed."""
_RESIZE_LIMIT: Final = 1 << 14

_log = get_logger(__name__)


class Session:
    """The streams of one exec or attach, as the node sees them.

    write: sends bytes of `stdout` or `stderr` to the client.
    """

    def __init__(
        self, options: ExecOptions, write: Callable[[str, bytes], None], drain: Callable[[], Awaitable[None]]
    ) -> None:
        self.stdin, self.stdout, self.stderr, self.tty = options.stdin, options.stdout, options.stderr, options.tty
        self.stdin_inbox = Inbox()
        self.resize_inbox = Inbox(_RESIZE_LIMIT)
        self._write = write
        self._drain = drain
        self._sizes = ""

    def use(self, stdin: Inbox | None, resize: Inbox | None) -> None:
        """Take the inboxes of streams that have their own."""
        self.stdin_inbox = stdin or self.stdin_inbox
        self.resize_inbox = resize or self.resize_inbox

    async def read_stdin(self) -> bytes:
        return await self.stdin_inbox.read() if self.stdin else b""

    def write_stdout(self, data: bytes) -> None:
        if self.stdout and data:
            self._write("stdout", data)

    def write_stderr(self, data: bytes) -> None:
        if self.stderr and data:
            self._write("stderr", data)

    async def drain(self) -> None:
        await self._drain()

    async def resized(self) -> tuple[int, int]:
        """Wait for the next size; once the client can tell none any more, for ever."""
        decoder = json.JSONDecoder()
        while True:
            self._sizes = self._sizes.lstrip()
            with suppress(ValueError, AttributeError, TypeError):
                size, end = decoder.raw_decode(self._sizes)
                self._sizes = self._sizes[end:]
                return int(size.get("Width", 0)), int(size.get("Height", 0))
            data = await self.resize_inbox.read()
            if not data or len(self._sizes) > _RESIZE_LIMIT:
                self.resize_inbox.drop()
                await asyncio.Event().wait()
            self._sizes += data.decode("utf-8", "replace")

    def leave(self) -> None:
        """Let go what the client still sends."""
        self.stdin_inbox.drop()
        self.resize_inbox.drop()


async def finish(
    nodes: NodeStreams, pod: Object, container: str, options: ExecOptions, session: Session, *, attach: bool
) -> Object:
    """Run the command to its end and return the Status that tells the client how it ended."""
    try:
        code = await nodes.exec(pod, container, options.command, session, attach=attach)
    except ApiStatus as error:
        return _told(error)
    except Exception as error:  # noqa: BLE001 - the client is told, whatever it is
        _log.exception("a command could not be run", pod=pod["metadata"]["name"], container=container)
        what = "attaching to" if attach else "executing command in"
        return _told(internal_error(f"error {what} container: {error}"))
    if not code:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _told(error: ApiStatus) -> Object:
    told = error.to_dict()
    del told["kind"], told["apiVersion"]
    return told


def status_bytes(status: Object, version: int) -> bytes:
    """Write a Status for the error stream: JSON since version 4 of the protocol, before only the text of a failure."""
    if version >= 4:
        return msgspec.json.encode(status)
    return b"" if status["status"] == "Success" else str(status.get("message", "")).encode()


async def until_either(pump: asyncio.Task[None], work: Coroutine[Any, Any, Object]) -> Object | None:
    """Wait for the work; where the connection ends first, stop the work and return None."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({pump, task}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def linger(pump: asyncio.Task[None], clock: Clock) -> None:
    """Let the client read to the end and close, for so long as one may take."""
    timer = clock.call_later(LINGER_SECONDS, pump.cancel)
    try:
        await asyncio.wait({pump})
    finally:
        timer.cancel()


async def stop(pump: asyncio.Task[None]) -> None:
    """Read no more of a connection; what went wrong with it no longer matters."""
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)
