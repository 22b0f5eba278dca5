"""Pods on real nodes: exec, attach, port-forward and logs carried to a kubelet's HTTPS API."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from pilothouse.apiserver.model import Duplex, Sink
from pilothouse.apiserver.ports import ContainerStreams, Object, View
from pilothouse.apiserver.proxying.dialing import Dialed, dial, dial_error, read_refusal, request_upgrade
from pilothouse.apiserver.proxying.resolve import node_address
from pilothouse.apiserver.proxying.reverse import ReverseProxy
from pilothouse.apiserver.streams.podoptions import host_of
from pilothouse.apiserver.streams.spdy import SpdyError
from pilothouse.apiserver.streams.spdypeer import SpdyPeer, SpdyStream
from pilothouse.kinds import times
from pilothouse.kinds.status import (
    ApiStatus,
    BadRequest,
    Details,
    InternalError,
    Unknown,
    from_dict,
    generic,
    internal_error,
    not_found,
)

__all__ = ["KubeletStreams"]

_CHUNK: Final = 1 << 16
_MAX_STATUS: Final = 1 << 16
_MAX_REFUSAL: Final = 1 << 16
_ANSWER_SECONDS: Final = 30.0
_LOG_OPTIONS: Final = (
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
)


class KubeletStreams:
    """A `NodeStreams` for nodes that run a kubelet.

    tls: trusts the kubelets' certificates and has the client certificate that they know this server by.
    insecure_tls: the same without checking, for `insecureSkipTLSVerifyBackend`; such logs are refused where None.
    """

    def __init__(
        self,
        view: View,
        proxy: ReverseProxy,
        tls: ssl.SSLContext,
        *,
        insecure_tls: ssl.SSLContext | None = None,
    ) -> None:
        self._view = view
        self._proxy = proxy
        self._tls = tls
        self._insecure_tls = insecure_tls
        self._request_ids = itertools.count()

    def address(self, node: Object) -> tuple[str, int] | None:
        try:
            return node_address(node)
        except ApiStatus:
            return None

    def _address_of(self, pod: Object) -> tuple[str, int]:
        name = host_of(pod)
        node = self._view.get("nodes", "", name)
        if node is None:
            raise not_found("", "nodes", name)
        return node_address(node)

    # -- commands

    async def exec(
        self, pod: Object, container: str, command: Sequence[str], streams: ContainerStreams, *, attach: bool = False
    ) -> int:
        wanted = [name for name in ("stdin", "stdout", "stderr") if getattr(streams, name)]
        query = [("input" if name == "stdin" else "output" if name == "stdout" else "error", "1") for name in wanted]
        query += [("tty", "1")] * streams.tty + [("command", part) for part in command]
        path = f"{_pod_path('attach' if attach else 'exec', pod)}/{quote(container, safe='')}?{urlencode(query)}"
        async with self._spdy(pod, path, "v4.channel.k8s.io") as peer:
            kinds = ["error", *wanted, *(["resize"] if streams.tty else [])]
            opened = {kind: peer.open({"streamtype": kind}) for kind in kinds}
            return await _carry(opened, streams)

    @asynccontextmanager
    async def _spdy(self, pod: Object, path: str, protocol: str) -> AsyncIterator[SpdyPeer]:
        host, port = self._address_of(pod)
        dialed = await dial(host, port, self._tls, "")
        pump: asyncio.Task[None] | None = None
        try:
            headers = [
                ("Host", f"{host}:{port}"),
                ("Connection", "Upgrade"),
                ("Upgrade", "SPDY/3.1"),
                ("X-Stream-Protocol-Version", protocol),
                ("Content-Length", "0"),
            ]
            await request_upgrade(dialed, "POST", path, headers)
            if dialed.status != 101:
                refused = await read_refusal(dialed)
                raise _refusal(dialed.status, refused.body if isinstance(refused.body, bytes) else b"")
            peer = SpdyPeer(_SocketDuplex(dialed), server=False)
            pump = asyncio.create_task(peer.run())
            yield peer
        finally:
            if pump is not None:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
            dialed.writer.close()

    # -- ports

    async def port_forward(self, pod: Object, port: int, connection: Duplex) -> None:
        async with self._spdy(pod, _pod_path("portForward", pod), "portforward.k8s.io") as peer:
            common = {"port": str(port), "requestid": str(next(self._request_ids))}
            error = peer.open({**common, "streamtype": "error"})
            error.close()
            data = peer.open({**common, "streamtype": "data"})
            await _accepted(error, data)
            up = asyncio.create_task(_copy_up(connection, data))
            down = asyncio.create_task(_copy_down(data, connection))
            told = asyncio.create_task(_read_all(error))
            try:
                await asyncio.wait({down})
                if text := await told:
                    raise InternalError(text.decode("utf-8", "replace"))
            finally:
                for task in (up, down, told):
                    task.cancel()
                await asyncio.gather(up, down, told, return_exceptions=True)

    # -- logs

    async def logs(self, pod: Object, container: str, options: Mapping[str, Any], sink: Sink) -> None:
        import aiohttp  # noqa: PLC0415 - heavy, and idle servers read no logs

        host, port = self._address_of(pod)
        context = self._tls
        if options.get("insecureSkipTLSVerifyBackend"):
            if self._insecure_tls is None:
                raise Unknown("insecureSkipTLSVerifyBackend: this server only reads logs of verified nodes", code=500)
            context = self._insecure_tls
        query = urlencode([(name, _shown(options[name])) for name in _LOG_OPTIONS if name in options])
        path = f"{_pod_path('containerLogs', pod)}/{quote(container, safe='')}?{query}"
        netloc = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_ANSWER_SECONDS)
        try:
            async with self._proxy.session().get(
                f"https://{netloc}{path}", ssl=context, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    told = b""
                    async for data in response.content.iter_any():
                        told = (told + data)[:_MAX_REFUSAL]
                    raise _log_refusal(response.status, told, pod["metadata"]["name"])
                async for data in response.content.iter_any():
                    sink.write(data)
                    await sink.drain()
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            cause = getattr(failure, "certificate_error", None) or getattr(failure, "os_error", None) or failure
            raise Unknown(f'Get "https://{netloc}{path}": {dial_error(host, port, cause)}', code=500) from failure


def _pod_path(verb: str, pod: Object) -> str:
    metadata = pod["metadata"]
    return f"/{verb}/{quote(metadata['namespace'], safe='')}/{quote(metadata['name'], safe='')}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return times.format_seconds(value) if isinstance(value, datetime) else str(value)


def _refusal(status: int, body: bytes) -> ApiStatus:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if isinstance(told, dict) and told.get("kind") == "Status":
        return from_dict(told, code=status)
    text = body.decode("utf-8", "replace").strip()
    return Unknown(text, code=status) if text else generic(status)


def _log_refusal(status: int, body: bytes, name: str) -> ApiStatus:
    """Say what a node said instead of a log, in the words of Kubernetes."""
    text = body.decode("utf-8", "replace")
    if status == 400:
        return BadRequest(text)
    if status == 500:
        return internal_error(text)
    error = generic(status, text, Details(name, kind="pods/log"))
    return type(error)(f"{error.message} ( pods/log {name})", error.details, code=status)


class _SocketDuplex:
    """An asyncio connection as a `Duplex`."""

    def __init__(self, dialed: Dialed) -> None:
        self._reader, self._writer = dialed.reader, dialed.writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_CHUNK)
        except OSError:
            return b""

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError:
            # The reader notices the end.
            return

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


async def _accepted(*streams: SpdyStream) -> None:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            for stream in streams:
                await stream.accepted.wait()
    except TimeoutError as error:
        raise InternalError("the node did not accept the streams in time") from error
    if any(stream.ended for stream in streams):
        raise InternalError("the node refused a stream")


async def _read_all(stream: SpdyStream, limit: int = _MAX_STATUS) -> bytes:
    """Read to the end; what is longer than a status is cut."""
    told = b""
    while data := await stream.read():
        told = (told + data)[:limit]
    return told


async def _copy_up(connection: Duplex, stream: SpdyStream) -> None:
    while data := await connection.read():
        stream.write(data)
        await stream.drain()
    stream.close()


async def _copy_down(stream: SpdyStream, connection: Duplex) -> None:
    while data := await stream.read():
        connection.write(data)
        await connection.drain()


async def _carry(opened: Mapping[str, SpdyStream], streams: ContainerStreams) -> int:
    """Carry the streams of a command until it ends; return its exit code. Raises what the node says went wrong."""
    await _accepted(*opened.values())
    up = [asyncio.create_task(_feed(opened["stdin"], streams))] if "stdin" in opened else []
    if "resize" in opened:
        up.append(asyncio.create_task(_resize(opened["resize"], streams)))
    down = [
        asyncio.create_task(_output(opened[name], write, streams))
        for name, write in (("stdout", streams.write_stdout), ("stderr", streams.write_stderr))
        if name in opened
    ]
    told = asyncio.create_task(_read_all(opened["error"]))
    try:
        await asyncio.gather(*down, told)
        return _exit_code(told.result())
    except SpdyError as error:
        raise InternalError(f"the connection to the node broke: {error}") from error
    finally:
        for task in (*up, *down, told):
            task.cancel()
        await asyncio.gather(*up, *down, told, return_exceptions=True)


async def _feed(stream: SpdyStream, streams: ContainerStreams) -> None:
    while data := await streams.read_stdin():
        stream.write(data)
        await stream.drain()
    stream.close()


async def _resize(stream: SpdyStream, streams: ContainerStreams) -> None:
    while True:
        width, height = await streams.resized()
        stream.write(json.dumps({"Width": width, "Height": height}).encode() + b"\n")


async def _output(stream: SpdyStream, write: Any, streams: ContainerStreams) -> None:
    while data := await stream.read():
        write(data)
        await streams.drain()


def _exit_code(status: bytes) -> int:
    try:
        told = json.loads(status)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise InternalError("the connection to the node ended before the command did")
    if told.get("status") == "Success":
        return 0
    error = from_dict(told, code=500)
    if told.get("reason") == "NonZeroExitCode":
        for cause in error.causes:
            text = str(cause.get("message", ""))
            if cause.get("reason") == "ExitCode" and text.isascii() and text.isdigit():
                return int(text[:10])
    raise error
