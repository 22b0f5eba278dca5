"""A command in a container: what it reads and writes, the size of its terminal, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import msgspec

from pilothouse.kinds.status import from_dict

from .errors import StreamFailed
from .streamsocket import ChannelSocket

__all__ = ["PROTOCOLS", "CommandResult", "Session"]

PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_MAX_STATUS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended, and what it wrote."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Session:
    """A running command. Iterating gives `("stdout", data)` and `("stderr", data)` in order until it ends.

    Leaving the block ends the connection; Kubernetes itself does not end the command then.
    """

    def __init__(self, socket: ChannelSocket, where: str) -> None:
        self._socket = socket
        self._where = where
        self._messages: AsyncGenerator[tuple[int, bytes], None] = socket.messages()
        self._status = bytearray()
        self._exit_code: int | None = None

    @property
    def exit_code(self) -> int:
        """The command's exit status, once the iteration has ended. Raises RuntimeError before."""
        if self._exit_code is None:
            raise RuntimeError(f"{self._where}: has not ended; iterate to the end first")
        return self._exit_code

    async def write(self, data: bytes) -> None:
        """Write to the command's standard input; waits while it does not read."""
        if data:
            await self._socket.send(_STDIN, data)

    async def close_stdin(self) -> None:
        """End the command's standard input. Raises StreamFailed where the server is too old for it."""
        if self._socket.protocol != PROTOCOLS[0]:
            raise StreamFailed(f"{self._where}: standard input cannot be ended by {self._socket.protocol}")
        await self._socket.send(_CLOSE, bytes((_STDIN,)))

    async def resize(self, width: int, height: int) -> None:
        """Tell the size of the terminal, in characters."""
        await self._socket.send(_RESIZE, msgspec.json.encode({"Width": width, "Height": height}))

    def __aiter__(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        return self._outputs()

    async def _outputs(self) -> AsyncGenerator[tuple[Literal["stdout", "stderr"], bytes], None]:
        async for channel, data in self._messages:
            if channel == _STDOUT and data:
                yield "stdout", data
            elif channel == _STDERR and data:
                yield "stderr", data
            elif channel == _ERROR and len(self._status) < _MAX_STATUS:
                self._status += data
        self._exit_code = self._ended()

    async def collect(self, max_bytes: int = 64 << 20) -> CommandResult:
        """Read all outputs and return them with the exit status. Raises StreamFailed beyond `max_bytes`."""
        parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        size = 0
        async with aclosing(self._outputs()) as outputs:
            async for name, data in outputs:
                parts[name].append(data)
                size += len(data)
                if size > max_bytes:
                    raise StreamFailed(f"{self._where}: over {max_bytes} bytes of output; iterate over the session")
        return CommandResult(self.exit_code, b"".join(parts["stdout"]), b"".join(parts["stderr"]))

    def _ended(self) -> int:
        """Read what the last channel said. Follows `remotecommand` of Kubernetes from version 4 on."""
        if not self._status:
            reason = f": {self._socket.close_reason}" if self._socket.close_reason else ""
            raise StreamFailed(f"{self._where}: the connection ended, and nothing said how the command did{reason}")
        try:
            status: Any = msgspec.json.decode(bytes(self._status))
        except msgspec.DecodeError:
            raise StreamFailed(f"{self._where}: {bytes(self._status[:300]).decode('utf-8', 'replace')}") from None
        if not isinstance(status, dict) or status.get("status") == "Success":
            return 0
        error = from_dict(status)
        if error.reason == "NonZeroExitCode":
            for cause in error.causes:
                if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdigit():
                    return int(cause["message"])
        raise StreamFailed(f"{self._where}: {error.message or 'failed'}")

    async def aclose(self) -> None:
        """End the connection."""
        await self._messages.aclose()
        self._socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
