"""`pods/NAME/log`: what a container wrote, streamed as the node gives it."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Final

from pilothouse.apiserver.model import (
    Answer,
    Duplex,
    Piece,
    Request,
    Response,
    Sink,
    StreamingResponse,
    UpgradeResponse,
    refusal,
)
from pilothouse.apiserver.ports import NodeStreams, Object, View
from pilothouse.apiserver.streams.negotiation import Handshake, is_websocket, websocket_handshake
from pilothouse.apiserver.streams.podoptions import choose_container, log_options, no_nodes
from pilothouse.apiserver.streams.session import stop
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, BadRequest, internal_error

if TYPE_CHECKING:
    from pilothouse.apiserver.streams.websocket import WebSocket

__all__ = ["logs"]

_WEBSOCKET_PROTOCOLS: Final = {"": False, "binary.k8s.io": False, "base64.binary.k8s.io": True}

_QUIET_SECONDS: Final = 1.0
"""How long a node may say nothing before the answer begins: until then its refusal can still be the answer."""
_UNREAD_SECONDS: Final = 30.0
"""How long the answer may take to begin once it is ready."""
_HELD: Final = 1 << 18
"""Bytes held before the answer begins."""

_log = get_logger(__name__)


async def logs(
    request: Request,
    pod: Object,
    nodes: NodeStreams | None,
    *,
    split_streams: bool = False,
    view: View | None = None,
    clock: Clock | None = None,
) -> Answer:
    """Answer a GET of a pod's log. A pod without a node has none: 204, as Kubernetes has it.

    split_streams: allow the option `stream`, which Kubernetes has behind a feature gate that is off.
    view: says whether the pod's node is there, where `nodes` is None.
    """
    name = pod["metadata"]["name"]
    try:
        options = log_options(request, name, split_streams=split_streams)
        container = choose_container(pod, options.get("container", ""))
        node = pod.get("spec", {}).get("nodeName", "")
        if not node:
            return Response(204)
        if nodes is None:
            raise no_nodes(node, view)
    except (ApiStatus, ValueError) as error:
        return refusal(error if isinstance(error, ApiStatus) else BadRequest(str(error)))
    clock = clock or SystemClock()
    held = _HeldSink()
    task = asyncio.create_task(nodes.logs(pod, container, options, held))
    # A client that goes before its answer begins must not leave the node writing.
    unread = clock.call_later(_UNREAD_SECONDS, lambda: held.released or task.cancel())
    task.add_done_callback(lambda _: unread.cancel())
    try:
        await _begun(task, held, clock)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if task.done() and (failure := task.exception()) is not None and not held.written:
        if isinstance(failure, ApiStatus):
            return refusal(failure)
        _log.error("a log could not be read", pod=name, container=container, error=str(failure))
        return refusal(internal_error(str(failure)))
    if is_websocket(request):
        handshake = websocket_handshake(request, tuple(_WEBSOCKET_PROTOCOLS))
        if not isinstance(handshake, Handshake):
            task.cancel()
            return handshake
        coded = _WEBSOCKET_PROTOCOLS[handshake.protocol]
        return UpgradeResponse(lambda duplex: _over_websocket(task, held, duplex, coded=coded), handshake.headers)
    return StreamingResponse(lambda sink: _follow(task, held, sink), content_type="text/plain")


async def _begun(task: asyncio.Task[None], held: _HeldSink, clock: Clock) -> None:
    """Wait until the node writes or ends, or says nothing for a while."""
    timer = clock.call_later(_QUIET_SECONDS, held.begun.set)
    task.add_done_callback(lambda _: held.begun.set())
    try:
        await held.begun.wait()
    finally:
        timer.cancel()


async def _follow(task: asyncio.Task[None], held: _HeldSink, sink: Sink) -> None:
    """Give the client what the node writes; where either goes, the other is left."""
    held.release(sink)
    try:
        await task
    finally:
        task.cancel()


async def _over_websocket(task: asyncio.Task[None], held: _HeldSink, duplex: Duplex, *, coded: bool) -> None:
    """Give a client that cannot read a stream the log in messages: browsers."""
    from pilothouse.apiserver.streams.websocket import WebSocket  # noqa: PLC0415 - wsproto only where it is used

    socket = WebSocket(duplex)
    sink = _MessageSink(socket, coded=coded)
    # An empty message tells the client that the connection stands.
    sink.write(b"")
    pump = asyncio.create_task(_ignore(socket, sink))
    try:
        held.release(sink)
        await asyncio.wait({task, pump}, return_when=asyncio.FIRST_COMPLETED)
        socket.close()
    finally:
        task.cancel()
        await stop(pump)
        await asyncio.gather(task, return_exceptions=True)


async def _ignore(socket: WebSocket, sink: _MessageSink) -> None:
    async for _ in socket.parts():
        pass
    sink.closed = True


class _MessageSink:
    """A WebSocket as a sink: each piece is a message."""

    def __init__(self, socket: WebSocket, *, coded: bool) -> None:
        self._socket = socket
        self._coded = coded
        self.closed = False
        self.buffered = 0

    def write(self, data: bytes) -> None:
        if self._coded:
            self._socket.send(base64.b64encode(data), text=True)
        else:
            self._socket.send(data)

    def write_piece(self, piece: Piece) -> None:
        self.write(piece.data)

    async def drain(self) -> None:
        await self._socket.drain()


class _HeldSink:
    """Keeps what the node writes until the answer has begun, and passes it on from then."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.written = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._sink: Sink | None = None
        self._released = asyncio.Event()

    @property
    def released(self) -> bool:
        """Whether the client gets what is written."""
        return self._sink is not None

    @property
    def buffered(self) -> int:
        return self._size if self._sink is None else self._sink.buffered

    @property
    def closed(self) -> bool:
        return self._sink is not None and self._sink.closed

    def write(self, data: bytes) -> None:
        if self._sink is not None:
            self._sink.write(data)
            return
        if data:
            self._pieces.append(data)
            self._size += len(data)
            self.written = True
            self.begun.set()

    def write_piece(self, piece: Piece) -> None:
        self.write(piece.data)

    async def drain(self) -> None:
        if self._sink is None and self._size > _HELD:
            await self._released.wait()
        if self._sink is not None:
            await self._sink.drain()

    def release(self, sink: Sink) -> None:
        """Give what was kept to the client, and all that follows."""
        self._sink = sink
        for piece in self._pieces:
            sink.write(piece)
        self._pieces.clear()
        self._size = 0
        self._released.set()
