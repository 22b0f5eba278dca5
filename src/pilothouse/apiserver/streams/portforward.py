"""Port-forward: connections to a pod's ports over SPDY, over SPDY in WebSocket, and over WebSocket's channels."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pilothouse.apiserver.model import Answer, Duplex, Request, UpgradeResponse, refusal
from pilothouse.apiserver.ports import NodeStreams, Object, View
from pilothouse.apiserver.streams.idle import Watched
from pilothouse.apiserver.streams.inbox import Inbox
from pilothouse.apiserver.streams.negotiation import (
    SPDY,
    Handshake,
    is_upgrade,
    is_websocket,
    offered_protocols,
    plain,
    spdy_handshake,
    websocket_handshake,
)
from pilothouse.apiserver.streams.podoptions import host_of, no_nodes, refuse_dry_run
from pilothouse.apiserver.streams.session import linger, stop
from pilothouse.apiserver.streams.spdypeer import SpdyPeer, SpdyStream
from pilothouse.foundation.clock import Clock, SystemClock, Timer
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.status import ApiStatus, BadRequest

if TYPE_CHECKING:
    from pilothouse.apiserver.streams.channels import Channels

__all__ = ["connect_port_forward"]

_PROTOCOL: Final = "portforward.k8s.io"
_TUNNEL: Final = f"{SPDY}+{_PROTOCOL}"
_CHANNEL_PROTOCOLS: Final = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "")
_MAX_PORTS: Final = 64
"""Ports of one WebSocket: a channel's number is one byte, and each port has two."""
PAIR_SECONDS: Final = 30.0
"""How long a client may take between the two streams of a connection."""
_MAX_PORT: Final = 65535

_log = get_logger(__name__)


async def connect_port_forward(
    request: Request,
    pod: Object,
    nodes: NodeStreams | None,
    *,
    view: View | None = None,
    clock: Clock | None = None,
) -> Answer:
    """Answer `pods/NAME/portforward`. view: says whether the pod's node is there, where `nodes` is None."""
    try:
        refuse_dry_run(request)
        node = host_of(pod)
        if nodes is None:
            raise no_nodes(node, view)
        if not is_upgrade(request):
            raise BadRequest("Upgrade request required")
    except (ApiStatus, ValueError) as error:
        return refusal(error if isinstance(error, ApiStatus) else BadRequest(str(error)))
    forward = _Forward(pod, nodes, clock or SystemClock())
    if not is_websocket(request):
        return _agreed(spdy_handshake(request, (_PROTOCOL,)), lambda _, duplex: forward.over_spdy(duplex))
    if any(offer.startswith(f"{SPDY}+") for offer in offered_protocols(request)):
        return _agreed(websocket_handshake(request, (_TUNNEL,)), lambda _, duplex: forward.over_tunnel(duplex))
    try:
        ports = _ports(request)
    except ValueError as error:
        return plain(400, str(error))
    return _agreed(
        websocket_handshake(request, _CHANNEL_PROTOCOLS),
        lambda protocol, duplex: forward.over_channels(duplex, ports, coded="base64" in protocol),
    )


def _agreed(handshake: Handshake | Answer, run: Callable[..., object]) -> Answer:
    if not isinstance(handshake, Handshake):
        return handshake
    return UpgradeResponse(partial(run, handshake.protocol), handshake.headers)  # type: ignore[arg-type]


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:10]) > _MAX_PORT:
        problem = "value out of range" if text.isascii() and text.isdigit() else "invalid syntax"
        raise ValueError(
            f"unable to parse {quote(text[:32])} as a port: strconv.ParseUint: parsing {quote(text[:32])}: {problem}"
        )
    if int(text) < 1:
        raise ValueError(f"port {quote(text[:32])} must be > 0")
    return int(text)


def _ports(request: Request) -> list[int]:
    values = request.query.get("ports") or request.query.get("port")
    if not values:
        raise ValueError('query parameter "port" is required')
    if not all(values):
        raise ValueError('query parameter "port" cannot be empty')
    ports = [_port(text) for value in values for text in value.split(",")]
    if len(ports) > _MAX_PORTS:
        raise ValueError(f"{len(ports)} ports; at most {_MAX_PORTS} can be forwarded over one WebSocket")
    return ports


class _Forward:
    """One accepted request."""

    def __init__(self, pod: Object, nodes: NodeStreams, clock: Clock) -> None:
        self._pod, self._nodes, self._clock = pod, nodes, clock

    async def over_spdy(self, duplex: Duplex) -> None:
        """Carry connections on pairs of SPDY streams."""
        watched = Watched(duplex, self._clock)
        pairs = _Pairs(self.connect, self._clock)
        try:
            await SpdyPeer(watched, server=True, opened=pairs.opened).run()
        finally:
            watched.stop()
            await pairs.stop()

    async def over_tunnel(self, duplex: Duplex) -> None:
        """Carry SPDY in the messages of a WebSocket."""
        from pilothouse.apiserver.streams.websocket import WebSocket, WebSocketTunnel  # noqa: PLC0415

        socket = WebSocket(duplex)
        try:
            await self.over_spdy(WebSocketTunnel(socket, duplex))
        finally:
            socket.close()

    async def over_channels(self, duplex: Duplex, ports: list[int], *, coded: bool) -> None:
        """Carry one connection to each port on a pair of channels."""
        from pilothouse.apiserver.streams.channels import Channels  # noqa: PLC0415 - wsproto only where it is used
        from pilothouse.apiserver.streams.websocket import WebSocket  # noqa: PLC0415

        watched = Watched(duplex, self._clock)
        inboxes = {2 * place: Inbox() for place in range(len(ports))}
        channels = Channels(WebSocket(watched), inboxes, coded=coded)
        for place, port in enumerate(ports):
            for channel in (2 * place, 2 * place + 1):
                channels.send(channel, struct.pack("<H", port))
        pump = asyncio.create_task(channels.run())
        connections = [
            asyncio.create_task(self._over_channel(channels, 2 * place, inboxes[2 * place], port))
            for place, port in enumerate(ports)
        ]
        done = asyncio.gather(*connections)
        try:
            either: list[asyncio.Future[Any]] = [pump, done]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                channels.close()
                await linger(pump, self._clock)
        finally:
            watched.stop()
            await stop(pump)
            done.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _over_channel(self, channels: Channels, channel: int, inbox: Inbox, port: int) -> None:
        if told := await self.connect(port, _ChannelDuplex(channels, channel, inbox)):
            channels.send(channel + 1, told.encode())
        inbox.drop()

    async def connect(self, port: int, connection: Duplex) -> str:
        """Carry one connection to its end; return what went wrong, empty if nothing."""
        try:
            await self._nodes.port_forward(self._pod, port, connection)
        except Exception as error:  # noqa: BLE001 - the client is told, whatever it is
            text = error.message if isinstance(error, ApiStatus) else str(error)
            metadata = self._pod["metadata"]
            name = f"{metadata['name']}_{metadata.get('namespace', '')}"
            return f"error forwarding port {port} to pod {name}, uid {metadata.get('uid', '')}: {text}"
        return ""


class _ChannelDuplex:
    """A pair of channels as a connection."""

    def __init__(self, channels: Channels, channel: int, inbox: Inbox) -> None:
        self._channels, self._channel, self._inbox = channels, channel, inbox

    async def read(self) -> bytes:
        return await self._inbox.read()

    def write(self, data: bytes) -> None:
        if data:
            self._channels.send(self._channel, data)

    async def drain(self) -> None:
        await self._channels.drain()

    def close(self) -> None:
        """Do nothing: channels cannot be closed one by one."""

    def abort(self) -> None:
        """Do nothing: channels cannot be closed one by one."""


class _Pairs:
    """The connections of one client: each has a stream for data and one for what goes wrong."""

    def __init__(self, connect: Callable[[int, Duplex], Awaitable[str]], clock: Clock) -> None:
        self._connect = connect
        self._clock = clock
        self._halves: dict[str, tuple[SpdyStream, Timer]] = {}
        self._running: set[asyncio.Task[None]] = set()

    def opened(self, stream: SpdyStream) -> bool:
        """Take a stream with its port and type; one without them is refused."""
        kind = stream.header("streamtype")
        try:
            port = _port(stream.header("port"))
        except ValueError as error:
            _log.info("a stream of a port-forward was refused", why=str(error))
            return False
        if kind not in {"error", "data"}:
            return False
        # Clients before request ids open the error stream first and the data stream next.
        pair = stream.header("requestid") or str(stream.number - (2 if kind == "data" else 0))
        if pair not in self._halves:
            timer = self._clock.call_later(PAIR_SECONDS, lambda: self._expire(pair))
            self._halves[pair] = (stream, timer)
            return True
        other, timer = self._halves[pair]
        if other.header("streamtype") == kind:
            return False
        timer.cancel()
        del self._halves[pair]
        pair_of = (stream, other) if kind == "data" else (other, stream)
        task = asyncio.create_task(self._carry(port, *pair_of))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True

    def _expire(self, pair: str) -> None:
        stream, _ = self._halves.pop(pair)
        if stream.header("streamtype") == "error":
            stream.write(f"(request={pair[:32]}) timed out waiting for streams".encode())
            stream.close()
        else:
            stream.abort()

    async def _carry(self, port: int, data: SpdyStream, error: SpdyStream) -> None:
        try:
            told = await self._connect(port, data)
            if told:
                error.write(told.encode())
        finally:
            data.close()
            error.close()
            data.inbox.drop()
            error.inbox.drop()

    async def stop(self) -> None:
        """End all connections: the client is gone."""
        for _, timer in self._halves.values():
            timer.cancel()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
