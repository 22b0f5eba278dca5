"""Which of the bytes that an HTTP/2 engine writes stand for bytes in a pipe, and what is written in their stead.

libnghttp2 copies what it frames, and its binding has no other way. So for bytes that wait in a pipe it is given as many
zeros: windows, turns of streams, resets, trailers and ends are its own as ever. Here its frames are followed by their
headers, and the zeros taken out again. Frames in a row of one stream become one, as large as the peer has them.
"""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from pilothouse.traffic.plane.wires import Pipe

__all__ = ["Payload", "Payloads", "Piece", "Run"]

_HEADER: Final = struct.Struct(">HBBBL")
_SIZE: Final = 9
_DATA: Final = 0


class Run:
    """Bytes of a stream in a pipe. ahead: queued before them, as they are; awaited: of them, what no frame has yet.

    framed: of them, what frames have that are not written yet.
    """

    __slots__ = ("ahead", "awaited", "framed", "is_left", "pipe")

    def __init__(self, pipe: Pipe, size: int, ahead: int) -> None:
        self.pipe = pipe
        self.ahead = ahead
        self.awaited = size
        self.framed = 0
        self.is_left = False


class Payload:
    """So many bytes that come out of a run's pipe. header: what is written before them, empty where it was already."""

    __slots__ = ("header", "run", "size")

    def __init__(self, run: Run, size: int, header: bytes = b"") -> None:
        self.run = run
        self.size = size
        self.header = header


Piece: TypeAlias = memoryview | Payload


class Payloads:
    """Follows what one engine writes, from the beginning of a frame on, while there are runs."""

    __slots__ = ("_due", "_held", "_last", "_left", "_length", "_runs", "_zeros")

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self._held = b""
        """The beginning of a header."""
        self._left = 0
        """Of the frame that has begun, bytes that go as they are."""
        self._zeros = 0
        """Of it, bytes behind them that stand for others."""
        self._due: Payload | None = None
        """Those others, until the bytes before them have gone."""
        self._last: Payload | None = None
        """The last frame's payload, as long as it may still grow."""
        self._length = 0
        """How large that frame is."""

    @property
    def is_idle(self) -> bool:
        """Whether all that is written goes as it is."""
        return not (self._runs or self._held or self._left or self._zeros)

    def expect(self, stream_id: int, pipe: Pipe, size: int, ahead: int) -> None:
        """Take note that the engine has `size` zeros for what a pipe holds; ahead: bytes queued before them."""
        self._runs[stream_id] = Run(pipe, size, ahead)

    def cut(self, data: bytes, most: int) -> list[Piece]:
        """Return what to write for what the engine wrote. most: bytes of a frame that the peer takes."""
        pieces: list[Piece] = []
        if self._held:
            data, self._held = self._held + data, b""
        view, end = memoryview(data), len(data)
        at = start = self._rest(pieces, view)
        if self._left or self._zeros:
            return pieces
        while at + _SIZE <= end:
            high, low, kind, _, stream_id = _HEADER.unpack_from(data, at)
            length = high << 8 | low
            run = self._runs.get(stream_id) if kind == _DATA and length else None
            if run is None:
                self._last = None
                at += _SIZE + length
                continue
            if start < at:
                pieces.append(view[start:at])
            if run.ahead:
                start, at = self._mix(pieces, view, at, run, length, stream_id)
            else:
                start = at = self._replace(pieces, data, at, run, most)
        if start < min(at, end):
            pieces.append(view[start:at])
        if at < end:
            self._held = data[at:]
        elif start == at:
            self._zeros = at - end
        else:
            self._left = at - end
        return pieces

    def _rest(self, pieces: list[Piece], view: memoryview) -> int:
        """Go on with the frame that has begun; return how far that was possible."""
        at = min(self._left, len(view))
        if at:
            pieces.append(view[:at])
            self._left -= at
        if not self._left and self._due is not None:
            pieces.append(self._due)
            self._due = None
        if not self._left:
            taken = min(self._zeros, len(view) - at)
            self._zeros -= taken
            at += taken
        return at

    def _mix(
        self, pieces: list[Piece], view: memoryview, at: int, run: Run, length: int, stream_id: int
    ) -> tuple[int, int]:
        """Take a frame that begins with bytes as they are; return from where on such come, and how far.

        Both are the same where zeros come.
        """
        self._last = None
        stop = at + _SIZE + min(run.ahead, length)
        zeros = max(length - run.ahead, 0)
        run.ahead -= length - zeros
        if not zeros:
            return at, stop
        due = Payload(run, zeros)
        self._framed(stream_id, run, zeros)
        if stop > len(view):
            self._due, self._zeros = due, zeros
            return at, stop
        pieces += (view[at:stop], due)
        return stop + zeros, stop + zeros

    def _replace(self, pieces: list[Piece], data: bytes, at: int, run: Run, most: int) -> int:
        """Take a frame of zeros, and those behind it that are like it; return where they end."""
        high, low, _, flags, stream_id = _HEADER.unpack_from(data, at)
        length = high << 8 | low
        header, size, end = data[at : at + _SIZE], _SIZE + length, len(data)
        left, zeros = run.awaited - length, length
        at += size
        while at < end and left >= length and data.startswith(header, at):
            at += size
            left -= length
            zeros += length
        self._framed(stream_id, run, zeros)
        last, whole = self._last, self._length
        while zeros:
            if last is None or last.run is not run or whole == most:
                last, whole = Payload(run, 0), 0
                pieces.append(last)
            part = min(zeros, most - whole)
            zeros -= part
            whole += part
            last.size += part
            last.header = _HEADER.pack(whole >> 8, whole & 0xFF, _DATA, 0 if zeros else flags, stream_id)
        self._last, self._length = last, whole
        return at

    def _framed(self, stream_id: int, run: Run, size: int) -> None:
        run.awaited -= size
        run.framed += size
        if not run.awaited:
            del self._runs[stream_id]

    def seal(self) -> None:
        """Let the last frame grow no more: its header is written."""
        self._last = None

    def leave(self, stream_id: int) -> None:
        """Take note that a stream is over; frames of it that are made already may still come."""
        run = self._runs.get(stream_id)
        if run is not None:
            run.is_left = True

    def dry(self) -> list[Run]:
        """Take note that the engine has written all that it had ready; return runs that are over by that."""
        over: list[Run] = []
        if not self._runs:
            return over
        for stream_id, run in list(self._runs.items()):
            if run.is_left:
                run.awaited = 0
                del self._runs[stream_id]
                if not run.framed:
                    over.append(run)
        return over

    def close(self) -> list[Run]:
        """Expect nothing more; return what there was."""
        runs, self._runs = self._runs, {}
        return list(runs.values())
