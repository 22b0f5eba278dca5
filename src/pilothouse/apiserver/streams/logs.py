"""`pods/NAME/log`: what a container wrote, streamed as the node gives it."""

from __future__ import annotations

import asyncio
from typing import Final

from pilothouse.apiserver.model import Answer, Piece, Request, Response, Sink, StreamingResponse, refusal
from pilothouse.apiserver.ports import NodeStreams, Object
from pilothouse.apiserver.streams.podoptions import choose_container, log_options
from pilothouse.apiserver.streams.remotecommand import no_nodes
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, BadRequest, internal_error

__all__ = ["logs"]

_QUIET_SECONDS: Final = 1.0
"""How long a node may say nothing before the answer begins: until then its refusal can still be the answer."""
_UNREAD_SECONDS: Final = 30.0
"""How long the answer may take to begin once it is ready."""
_HELD: Final = 1 << 18
"""Bytes held before the answer begins."""

_log = get_logger(__name__)


async def logs(request: Request, pod: Object, nodes: NodeStreams | None, *, clock: Clock | None = None) -> Answer:
    """Answer a GET of a pod's log. A pod without a node has none: 204, as Kubernetes has it."""
    name = pod["metadata"]["name"]
    try:
        options = log_options(request, name)
        container = choose_container(pod, options.get("container", ""))
        node = pod.get("spec", {}).get("nodeName", "")
        if not node:
            return Response(204)
        if nodes is None:
            raise no_nodes(node)
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
