"""What only pods have: logs, commands, forwarded ports, eviction, binding; and tokens and scale of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

import msgspec

from .calls import Caller
from .errors import TransportError
from .resources import Mapping
from .selecting import query

if TYPE_CHECKING:
    from .streamforward import ForwardedConnection, ForwardedPort
    from .streamsession import CommandResult, Session

__all__ = ["Pods"]

_PODS: Final = Mapping("", "v1", "Pod", "pods", namespaced=True)
_MAX_LINE: Final = 1 << 20


class Pods:
    """Calls about pods that no other resource has; `Client.pods` gives it."""

    def __init__(self, caller: Caller, namespace: str) -> None:
        self._caller = caller
        self._namespace = namespace

    def _path(self, name: str, namespace: str | None, subresource: str) -> str:
        return _PODS.item(name, namespace or self._namespace, subresource)

    async def logs(  # noqa: PLR0913
        self,
        name: str,
        namespace: str | None = None,
        *,
        container: str = "",
        follow: bool = False,
        previous: bool = False,
        since_seconds: int = 0,
        tail_lines: int | None = None,
        limit_bytes: int = 0,
        timestamps: bool = False,
        lines: bool = True,
    ) -> AsyncGenerator[bytes, None]:
        """Give the lines of a container's log, without their ends; follow: also those that are still to come.

        lines: False gives the bytes as they come. Lines of over 1 MiB come in parts.
        """
        target = self._path(name, namespace, "log") + query(
            container=container,
            follow=follow,
            previous=previous,
            sinceSeconds=since_seconds,
            tailLines=None if tail_lines is None else str(tail_lines),
            limitBytes=limit_bytes,
            timestamps=timestamps,
        )
        answer = await self._caller.request("GET", target, stream=True, accept="*/*")
        stream = answer.stream
        if stream is None:
            raise TransportError(f"{target}: the answer is no stream")
        try:
            rest = b""
            async for piece in stream:
                if not lines:
                    yield piece
                    continue
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    yield line
                if len(rest) > _MAX_LINE:
                    yield rest
                    rest = b""
            if rest:
                yield rest
        finally:
            await stream.aclose()

    async def read_logs(
        self,
        name: str,
        namespace: str | None = None,
        *,
        container: str = "",
        previous: bool = False,
        tail_lines: int | None = None,
    ) -> str:
        """Return a container's log as text."""
        pieces = self.logs(name, namespace, container=container, previous=previous, tail_lines=tail_lines, lines=False)
        async with aclosing(pieces):
            return b"".join([piece async for piece in pieces]).decode("utf-8", "replace")

    async def exec(
        self,
        name: str,
        command: Sequence[str],
        namespace: str | None = None,
        *,
        container: str = "",
        stdin: bool = False,
        tty: bool = False,
    ) -> Session:
        """Start a command and return its session: `async with await client.pods.exec("web", ["sh"]) as session:`."""
        if isinstance(command, str):
            raise TypeError(f"command: {command!r} is one text; pass program and arguments apart, as ['ls', '-l']")
        return await self._session(name, namespace, "exec", container, command, stdin=stdin, tty=tty)

    async def attach(
        self,
        name: str,
        namespace: str | None = None,
        *,
        container: str = "",
        stdin: bool = False,
        tty: bool = False,
    ) -> Session:
        """Attach to what runs in a container already."""
        return await self._session(name, namespace, "attach", container, (), stdin=stdin, tty=tty)

    async def _session(
        self,
        name: str,
        namespace: str | None,
        subresource: str,
        container: str,
        command: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
    ) -> Session:
        from .streamsession import PROTOCOLS, Session  # noqa: PLC0415  # loads wsproto
        from .streamsocket import open_socket  # noqa: PLC0415

        asked = [("command", part) for part in command]
        asked += [("stdin", "true")] if stdin else []
        asked += [("stdout", "true"), *([("tty", "true")] if tty else [("stderr", "true")])]
        asked += [("container", container)] if container else []
        path = self._path(name, namespace, subresource)
        socket = await open_socket(self._caller, f"{path}?{urlencode(asked, quote_via=quote)}", PROTOCOLS)
        return Session(socket, path)

    async def run(
        self,
        name: str,
        command: Sequence[str],
        namespace: str | None = None,
        *,
        container: str = "",
        stdin: bytes = b"",
        max_bytes: int = 64 << 20,
    ) -> CommandResult:
        """Run a command to its end and return its exit status and what it wrote.

        stdin: all of what it reads. Raises StreamFailed where it could not be run or wrote over `max_bytes`.
        """
        session = await self.exec(name, command, namespace, container=container, stdin=bool(stdin))
        async with session:

            async def feed() -> None:
                await session.write(stdin)
                await session.close_stdin()

            feeding = asyncio.ensure_future(feed()) if stdin else None
            try:
                return await session.collect(max_bytes)
            finally:
                if feeding is not None:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)

    async def connect(self, name: str, port: int, namespace: str | None = None) -> ForwardedConnection:
        """Connect to a port of a pod. What is wrong with the port is raised by the first read."""
        from .streamforward import FORWARD_PROTOCOL, ForwardedConnection  # noqa: PLC0415  # loads wsproto
        from .streamsocket import open_socket  # noqa: PLC0415

        path = self._path(name, namespace, "portforward")
        socket = await open_socket(self._caller, f"{path}?ports={int(port)}", (FORWARD_PROTOCOL,))
        return ForwardedConnection(socket, f"{path} port {port}")

    def port_forward(
        self, name: str, port: int, namespace: str | None = None, *, local_port: int = 0, host: str = "127.0.0.1"
    ) -> ForwardedPort:
        """Forward a local port: `async with client.pods.port_forward("web", 80) as local:` has `local.port`."""
        from .streamforward import ForwardedPort  # noqa: PLC0415  # loads wsproto

        return ForwardedPort(
            lambda: self.connect(name, port, namespace),
            f"{self._path(name, namespace, 'portforward')} port {port}",
            host=host,
            port=local_port,
        )

    async def evict(
        self, name: str, namespace: str | None = None, *, grace_seconds: int | None = None, dry_run: bool = False
    ) -> None:
        """Delete a pod unless a disruption budget forbids it now. Raises TooManyRequests then, after no second try."""
        options = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        metadata = {"name": name, "namespace": namespace or self._namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options}
        target = self._path(name, namespace, "eviction") + query(dryRun="All" if dry_run else "")
        await self._caller.once().call("POST", target, msgspec.json.encode(body))

    async def bind(self, name: str, node: str, namespace: str | None = None) -> None:
        """Bind a pod to a node, as schedulers do. Raises Conflict where it is bound already."""
        metadata = {"name": name, "namespace": namespace or self._namespace}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        await self._caller.call("POST", self._path(name, namespace, "binding"), msgspec.json.encode(body))
