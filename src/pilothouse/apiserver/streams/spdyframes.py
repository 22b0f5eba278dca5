"""Frames of SPDY/3.1: bytes into frames and back, header blocks compressed with the dictionary of SPDY/3."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = [
    "DICTIONARY",
    "FIN",
    "DataPart",
    "Frame",
    "FrameReader",
    "FrameWriter",
    "GoAway",
    "Headers",
    "Ping",
    "RstStream",
    "Settings",
    "SpdyError",
    "SynReply",
    "SynStream",
    "WindowUpdate",
]

_WORDS: Final = """
options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length
content-location content-md5 content-range content-type date etag expect expires from host if-match
if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma
proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade
user-agent vary via warning www-authenticate method get status
"""
_CODES: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
)
_TEXT: Final = (
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [*_WORDS.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"]
    listed = b"".join(struct.pack(">I", len(word)) + word.encode() for word in words)
    return listed + (_CODES + _TEXT).encode()


DICTIONARY: Final = _dictionary()
"""What header blocks are compressed with, from the specification of SPDY/3."""

FIN: Final = 1
"""The flag of a frame after which its sender sends nothing more on the stream."""

_CONTROL: Final = 0x8000_0000
_VERSION: Final = 3
_STREAM_ID: Final = 0x7FFF_FFFF
_HEAD: Final = struct.Struct(">II")
_WORD: Final = struct.Struct(">I")
_TWO_WORDS: Final = struct.Struct(">II")
_OPENING: Final = struct.Struct(">IIBB")

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9

MAX_CONTROL: Final = 1 << 16
"""Bytes of the longest control frame that is read."""
MAX_HEADER_BLOCK: Final = 1 << 16
"""Bytes of the longest header block after decompression."""
MAX_HEADERS: Final = 100


class SpdyError(Exception):
    """The peer broke the protocol; the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """A stream is opened. Header names are in lower case, each with its values."""

    stream: int
    headers: Mapping[str, tuple[str, ...]]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    """A stream is accepted."""

    stream: int
    headers: Mapping[str, tuple[str, ...]]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers of a stream."""

    stream: int
    headers: Mapping[str, tuple[str, ...]]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """A stream ends at once."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    """The peer's settings by number."""

    values: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life, to be sent back if the peer began it."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer opens and takes no more streams."""

    last: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """The peer takes so many bytes more; stream 0 is the connection."""

    stream: int
    delta: int


@dataclass(frozen=True, slots=True)
class DataPart:
    """Part of a DATA frame, as it came; `fin` only with the last part of the stream's last frame."""

    stream: int
    data: bytes
    fin: bool = False


Frame: TypeAlias = SynStream | SynReply | Headers | RstStream | Settings | Ping | GoAway | WindowUpdate | DataPart


class FrameReader:
    """Cuts bytes into frames; DATA comes in parts, so that nothing is kept but the head of one control frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data: tuple[int, int, int] | None = None
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and give the frames they complete. Raises SpdyError."""
        self._buffer += data
        while True:
            frame = self._next_part() if self._data is not None else self._next_frame()
            if frame is None:
                if self._data is None or not self._buffer:
                    return
                continue
            yield frame

    def _next_part(self) -> Frame | None:
        stream, left, flags = self._data or (0, 0, 0)
        if left and not self._buffer:
            return None
        part = bytes(self._buffer[:left])
        del self._buffer[: len(part)]
        left -= len(part)
        self._data = (stream, left, flags) if left else None
        return DataPart(stream, part, fin=not left and bool(flags & FIN))

    def _next_frame(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < _HEAD.size:
            return None
        first, second = _HEAD.unpack_from(buffer)
        flags, length = second >> 24, second & 0xFF_FFFF
        if not first & _CONTROL:
            del buffer[: _HEAD.size]
            if not first:
                raise SpdyError("a DATA frame of stream 0")
            self._data = (first, length, flags)
            return self._next_part()
        if length > MAX_CONTROL:
            raise SpdyError(f"a control frame of {length} bytes; at most {MAX_CONTROL} are read")
        if len(buffer) < _HEAD.size + length:
            return None
        payload = bytes(buffer[_HEAD.size : _HEAD.size + length])
        del buffer[: _HEAD.size + length]
        if (first & ~_CONTROL) >> 16 != _VERSION:
            raise SpdyError(f"version {(first & ~_CONTROL) >> 16}; only version {_VERSION} is spoken")
        return self._control(first & 0xFFFF, flags, payload)

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame:
        try:
            return self._read(kind, flags, payload)
        except struct.error as error:
            raise SpdyError(f"a control frame of type {kind} with {len(payload)} bytes") from error

    def _read(self, kind: int, flags: int, payload: bytes) -> Frame:
        fin = bool(flags & FIN)
        match kind:
            case 1:
                stream, _, _, _ = _OPENING.unpack_from(payload)
                return SynStream(_stream(stream), self._headers(payload[_OPENING.size :]), fin)
            case 2 | 8:
                stream = _stream(_WORD.unpack_from(payload)[0])
                headers = self._headers(payload[_WORD.size :])
                return SynReply(stream, headers, fin) if kind == _SYN_REPLY else Headers(stream, headers, fin)
            case 3:
                stream, status = _TWO_WORDS.unpack(payload)
                return RstStream(_stream(stream), status)
            case 4:
                return Settings(_settings(payload))
            case 6:
                return Ping(_WORD.unpack(payload)[0])
            case 7:
                last, status = _TWO_WORDS.unpack(payload)
                return GoAway(last & _STREAM_ID, status)
            case 9:
                stream, delta = _TWO_WORDS.unpack(payload)
                return WindowUpdate(stream & _STREAM_ID, delta & _STREAM_ID)
            case _:
                raise SpdyError(f"a control frame of unknown type {kind}")

    def _headers(self, block: bytes) -> Mapping[str, tuple[str, ...]]:
        # The compressor's state runs through all blocks, so one that cannot be read ends the connection.
        try:
            plain = self._inflate.decompress(block, MAX_HEADER_BLOCK)
        except zlib.error as error:
            raise SpdyError(f"a header block that cannot be decompressed: {error}") from error
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise SpdyError(f"a header block of more than {MAX_HEADER_BLOCK} bytes")
        return dict(_pairs(plain))


def _stream(stream: int) -> int:
    stream &= _STREAM_ID
    if not stream:
        raise SpdyError("a frame of stream 0")
    return stream


def _settings(payload: bytes) -> dict[int, int]:
    (count,) = _WORD.unpack_from(payload)
    if len(payload) != _WORD.size + count * _TWO_WORDS.size:
        raise SpdyError(f"a SETTINGS frame of {len(payload)} bytes with {count} settings")
    return {number & 0xFF_FFFF: value for number, value in _TWO_WORDS.iter_unpack(payload[_WORD.size :])}


def _pairs(plain: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    (count,) = _WORD.unpack_from(plain)
    if count > MAX_HEADERS:
        raise SpdyError(f"{count} headers; at most {MAX_HEADERS} are read")
    place = _WORD.size
    seen = set()
    for _ in range(count):
        name, place = _text(plain, place)
        value, place = _text(plain, place)
        if not name or name in seen:
            raise SpdyError("a header without a name" if not name else f"header {name} comes twice")
        seen.add(name)
        yield name.lower(), tuple(value.split("\0"))
    if place != len(plain):
        raise SpdyError(f"{len(plain) - place} bytes after the headers")


def _text(plain: bytes, place: int) -> tuple[str, int]:
    (length,) = _WORD.unpack_from(plain, place)
    start = place + _WORD.size
    if start + length > len(plain):
        raise SpdyError("a header that is longer than its block")
    return plain[start : start + length].decode("latin-1"), start + length


class FrameWriter:
    """Makes frames; one for each connection, for the compressor's state runs through all header blocks."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """Open a stream."""
        return _control(_SYN_STREAM, _OPENING.pack(stream, 0, 0, 0) + self._block(headers.items()), fin)

    def syn_reply(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """Accept a stream."""
        return _control(_SYN_REPLY, _WORD.pack(stream) + self._block(headers.items()), fin)

    def headers(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """Send more headers."""
        return _control(_HEADERS, _WORD.pack(stream) + self._block(headers.items()), fin)

    def _block(self, headers: Iterable[tuple[str, str]]) -> bytes:
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        plain = _WORD.pack(len(pairs)) + b"".join(
            _WORD.pack(len(name)) + name + _WORD.pack(len(value)) + value for name, value in pairs
        )
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    @staticmethod
    def rst_stream(stream: int, status: int) -> bytes:
        """End a stream at once."""
        return _control(_RST_STREAM, _TWO_WORDS.pack(stream, status))

    @staticmethod
    def settings(values: Mapping[int, int]) -> bytes:
        """Tell settings by number."""
        pairs = b"".join(_TWO_WORDS.pack(number, value) for number, value in values.items())
        return _control(_SETTINGS, _WORD.pack(len(values)) + pairs)

    @staticmethod
    def ping(number: int) -> bytes:
        """Ask for a sign of life, or give it."""
        return _control(_PING, _WORD.pack(number))

    @staticmethod
    def go_away(last: int, status: int) -> bytes:
        """Say that no more streams are taken."""
        return _control(_GOAWAY, _TWO_WORDS.pack(last, status))

    @staticmethod
    def window_update(stream: int, delta: int) -> bytes:
        """Take so many bytes more."""
        return _control(_WINDOW_UPDATE, _TWO_WORDS.pack(stream, delta))

    @staticmethod
    def data(stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Send bytes on a stream, fewer than 16 MiB."""
        return _HEAD.pack(stream, (FIN if fin else 0) << 24 | len(data)) + data


def _control(kind: int, payload: bytes, fin: bool = False) -> bytes:
    return _HEAD.pack(_CONTROL | _VERSION << 16 | kind, (FIN if fin else 0) << 24 | len(payload)) + payload
