"""What an HTTP/2 connection writes: its engine's frames, and payloads out of pipes behind their headers, in one order.

A header is written only for bytes that a pipe holds already, so nothing but the peer can hold a frame up, and a frame
that has begun is always completed: also when its stream is reset or its backend is gone meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ngh2 import Connection

from pilothouse.traffic.plane.payloads2 import Payload, Payloads, Piece
from pilothouse.traffic.plane.wires import Pipe, Wire

__all__ = ["Outlet"]

_ENGINE_FRAME: Final = 9 + (16 << 10)
_OUT_BYTES: Final = 4 * _ENGINE_FRAME
"""Taken of an engine at a time: whole frames of its own size, and no more memory than stays in the cache."""
_QUEUED_BYTES: Final = 1 << 20
"""Taken before anything is written, so that frames can grow together."""
_MAX_FRAME_SIZE: Final = 5
_LEAST_FRAME: Final = 16 << 10
_MOST_FRAME: Final = 256 << 10
"""Bytes of a frame, which no other stream's can come between."""


class Outlet:
    """The way out of one connection. is_dry: whether the engine has nothing ready, so that a run can begin.

    piped: streams that may have a pipe, each of which is two descriptors.
    """

    __slots__ = ("_engine", "_payloads", "_queue", "_wire", "is_dry", "piped")

    def __init__(self, engine: Connection, wire: Wire) -> None:
        self._engine, self._wire = engine, wire
        self._payloads = Payloads()
        self._queue: deque[Piece] = deque()
        self.is_dry = True
        self.piped: set[int] = set()

    @property
    def is_blocked(self) -> bool:
        """Whether there is something that could not be written yet."""
        return bool(self._queue) or self._wire.blocked

    @property
    def most(self) -> int:
        """Bytes of a frame that the peer takes."""
        return self._engine.remote_settings.get(_MAX_FRAME_SIZE, _LEAST_FRAME)

    def expect(self, stream_id: int, pipe: Pipe, ahead: int) -> None:
        """Write what a pipe holds where the engine writes zeros of a stream, of which it has got as many."""
        pipe.is_lent = True
        self.piped.add(stream_id)
        self._payloads.expect(stream_id, pipe, pipe.held, ahead)

    def forget(self, stream_id: int) -> None:
        """Take note that a stream is over."""
        if stream_id in self.piped:
            self.piped.discard(stream_id)
            self._payloads.leave(stream_id)
            if self.is_dry:
                self._dried()

    def flush(self) -> bool:
        """Write what was kept, then what the engine has; return whether nothing is left. Raises Gone, NGH2Error."""
        wire, engine = self._wire, self._engine
        if wire.blocked and not wire.flush():
            return False
        while not self._queue or self._write():
            data = engine.data_to_send(_OUT_BYTES)
            if not data:
                self._dried()
                return True
            self.is_dry = False
            if self._payloads.is_idle:
                wire.send((data,))
                if wire.blocked:
                    return False
            else:
                self._collect(data)
        return False

    def _collect(self, data: bytes) -> None:
        """Queue what the engine has, up to a bound, with payloads put in."""
        most = min(self.most, _MOST_FRAME)
        taken = 0
        while data:
            self._queue += self._payloads.cut(data, most)
            taken += len(data)
            if taken >= _QUEUED_BYTES:
                return
            data = self._engine.data_to_send(_OUT_BYTES)
        self._dried()

    def _dried(self) -> None:
        self.is_dry = True
        for run in self._payloads.dry():
            run.pipe.settle()

    def _write(self) -> bool:
        """Write what is queued; return whether nothing is left."""
        queue, wire = self._queue, self._wire
        self._payloads.seal()
        while queue:
            piece = queue[0]  # it stays there until it is written whole, so that `close` finds it
            is_more = len(queue) > 1
            if isinstance(piece, Payload):
                run, header = piece.run, piece.header
                count = wire.drain(run.pipe, piece.size, is_more, header)
                left = len(header) + piece.size - count
                run.framed -= max(count - len(header), 0)
                if left:
                    piece.header, piece.size = header[count:], min(piece.size, left)
                elif not (run.framed or run.awaited):
                    run.pipe.settle()
            else:
                count = wire.put(piece, is_more)
                left = len(piece) - count
                queue[0] = piece[count:]
            if left:
                wire.want_write(True)
                return False
            queue.popleft()
        wire.want_write(False)
        return True

    def close(self) -> None:
        """Give up what was not written."""
        runs = [piece.run for piece in self._queue if isinstance(piece, Payload)]
        self._queue.clear()
        for run in (*runs, *self._payloads.close()):
            run.pipe.settle()
