"""Exec and attach over WebSocket and over SPDY: what the client sends to the node, what comes of it back.

Protocols as Kubernetes names them: v5 to v1 of channel.k8s.io; v4 brought a Status with the exit code, v5 the end of
stdin over WebSocket.
"""

from __future__ import annotations

import asyncio
from typing import Final

from pilothouse.apiserver.model import Answer, Duplex, Request, UpgradeResponse, refusal
from pilothouse.apiserver.ports import NodeStreams, Object, View
from pilothouse.apiserver.streams.idle import Watched
from pilothouse.apiserver.streams.negotiation import (
    Handshake,
    is_upgrade,
    is_websocket,
    plain,
    spdy_handshake,
    websocket_handshake,
)
from pilothouse.apiserver.streams.podoptions import (
    ExecOptions,
    choose_container,
    exec_options,
    host_of,
    no_nodes,
    refuse_dry_run,
)
from pilothouse.apiserver.streams.session import Session, finish, linger, status_bytes, stop, until_either
from pilothouse.apiserver.streams.spdypeer import SpdyPeer, SpdyStream
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, BadRequest

__all__ = ["connect_exec"]

_WEBSOCKET_PROTOCOLS: Final = {
    "v5.channel.k8s.io": 5,
    "v4.channel.k8s.io": 4,
    "v4.base64.channel.k8s.io": 4,
    "channel.k8s.io": 1,
    "base64.channel.k8s.io": 1,
    "": 1,
}
_SPDY_PROTOCOLS: Final = {
    "v4.channel.k8s.io": 4,
    "v3.channel.k8s.io": 3,
    "v2.channel.k8s.io": 2,
    "channel.k8s.io": 1,
}
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)
_CHANNELS: Final = {"stdout": _STDOUT, "stderr": _STDERR}
STREAM_SECONDS: Final = 30.0
"""How long a client may take to open its streams over SPDY."""

_log = get_logger(__name__)


async def connect_exec(
    request: Request,
    pod: Object,
    nodes: NodeStreams | None,
    *,
    attach: bool = False,
    view: View | None = None,
    clock: Clock | None = None,
) -> Answer:
    """Answer `pods/NAME/exec` or `attach`. The refusals are those of Kubernetes, the node's in plain text.

    view: says whether the pod's node is there, where `nodes` is None.
    """
    try:
        refuse_dry_run(request)
        options = exec_options(request)
        container = choose_container(pod, options.container)
        node = host_of(pod)
        if nodes is None:
            raise no_nodes(node, view)
        if not is_upgrade(request):
            raise BadRequest("Upgrade request required")
    except (ApiStatus, ValueError) as error:
        return refusal(error if isinstance(error, ApiStatus) else BadRequest(str(error)))
    if not (options.stdin or options.stdout or options.stderr):
        return plain(400, "you must specify at least 1 of stdin, stdout, stderr")
    if not attach and not options.command:
        return plain(400, "you must specify at least one command for the container")
    handshake = (
        websocket_handshake(request, tuple(_WEBSOCKET_PROTOCOLS))
        if is_websocket(request)
        else spdy_handshake(request, tuple(_SPDY_PROTOCOLS))
    )
    if not isinstance(handshake, Handshake):
        return handshake
    run = _Run(pod, container, options, nodes, clock or SystemClock(), attach=attach)
    carrier = run.over_websocket if is_websocket(request) else run.over_spdy
    return UpgradeResponse(lambda duplex: carrier(duplex, handshake.protocol), handshake.headers)


class _Run:
    """One accepted request."""

    def __init__(
        self,
        pod: Object,
        container: str,
        options: ExecOptions,
        nodes: NodeStreams,
        clock: Clock,
        *,
        attach: bool,
    ) -> None:
        self._pod, self._container, self._options = pod, container, options
        self._nodes, self._clock, self._attach = nodes, clock, attach

    async def _finish(self, session: Session) -> Object:
        return await finish(self._nodes, self._pod, self._container, self._options, session, attach=self._attach)

    async def over_websocket(self, duplex: Duplex, protocol: str) -> None:
        """Carry the streams on channels."""
        from pilothouse.apiserver.streams.channels import Channels  # noqa: PLC0415 - wsproto only where it is used
        from pilothouse.apiserver.streams.websocket import WebSocket  # noqa: PLC0415

        watched = Watched(duplex, self._clock)
        version = _WEBSOCKET_PROTOCOLS[protocol]
        socket = WebSocket(watched)
        session = Session(self._options, lambda name, data: channels.send(_CHANNELS[name], data), socket.drain)
        inboxes = {_RESIZE: session.resize_inbox}
        if self._options.stdin:
            inboxes[_STDIN] = session.stdin_inbox
        channels = Channels(socket, inboxes, coded="base64" in protocol, closes=version >= 5)
        # An empty message tells the client that the connection stands.
        first = _STDOUT if self._options.stdout else _STDERR if self._options.stderr else _ERROR
        channels.send(first, b"")
        pump = asyncio.create_task(channels.run())
        try:
            status = await until_either(pump, self._finish(session))
            session.leave()
            if status is not None:
                if told := status_bytes(status, version):
                    channels.send(_ERROR, told)
                channels.close()
                await linger(pump, self._clock)
        finally:
            watched.stop()
            await stop(pump)

    async def over_spdy(self, duplex: Duplex, protocol: str) -> None:
        """Carry the streams on streams of SPDY, which the client opens."""
        watched = Watched(duplex, self._clock)
        version = _SPDY_PROTOCOLS[protocol]
        streams = _Streams(self._options, version)
        peer = SpdyPeer(watched, server=True, opened=streams.opened)
        pump = asyncio.create_task(peer.run())
        try:
            if not await streams.complete(pump, self._clock):
                _log.info("a client did not open its streams in time", pod=self._pod["metadata"]["name"])
                return
            session = Session(self._options, streams.write, streams.drain)
            stdin, resize = streams.found.get("stdin"), streams.found.get("resize")
            session.use(stdin.inbox if stdin else None, resize.inbox if resize else None)
            status = await until_either(pump, self._finish(session))
            session.leave()
            if status is not None:
                streams.end(status_bytes(status, version))
                await linger(pump, self._clock)
                peer.go_away()
        finally:
            watched.stop()
            await stop(pump)


class _Streams:
    """The streams that a client opens over SPDY, by their type."""

    def __init__(self, options: ExecOptions, version: int) -> None:
        wanted = {"stdin": options.stdin, "stdout": options.stdout, "stderr": options.stderr}
        self._wanted = {"error", *(name for name, asked in wanted.items() if asked)}
        if options.tty and version >= 3:
            self._wanted.add("resize")
        self.found: dict[str, SpdyStream] = {}
        self._complete = asyncio.Event()

    def opened(self, stream: SpdyStream) -> bool:
        """Take a stream that is asked for; others are refused."""
        kind = stream.header("streamtype")
        if kind not in self._wanted or kind in self.found:
            return False
        self.found[kind] = stream
        if len(self.found) == len(self._wanted):
            self._complete.set()
        return True

    async def complete(self, pump: asyncio.Task[None], clock: Clock) -> bool:
        """Wait until all are there; return whether they are before the time is over or the client gone."""
        waiting = asyncio.create_task(self._complete.wait())
        timer = clock.call_later(STREAM_SECONDS, waiting.cancel)
        try:
            await asyncio.wait({waiting, pump}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiting.cancel()
        return self._complete.is_set()

    def write(self, name: str, data: bytes) -> None:
        """Send output."""
        self.found[name].write(data)

    async def drain(self) -> None:
        """Wait until the client has taken enough of the output."""
        for name in ("stdout", "stderr"):
            if stream := self.found.get(name):
                await stream.drain()

    def end(self, status: bytes) -> None:
        """End the output, and tell how it ended."""
        if status:
            self.found["error"].write(status)
        for name in ("stdout", "stderr", "stdin", "resize", "error"):
            if stream := self.found.get(name):
                stream.close()
