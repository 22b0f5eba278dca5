"""What gRPC writes into HTTP/2: message framing, status, timeouts and metadata. No input or output.

Specification: grpc/grpc `doc/PROTOCOL-HTTP2.md`.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Iterable
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pilothouse.foundation.grpc.status import GrpcCode, GrpcError, Metadata

__all__ = [
    "MessageReader",
    "decode_message",
    "decode_metadata",
    "decode_status",
    "encode_message",
    "encode_metadata",
    "format_timeout",
    "frame_message",
    "goaway_frame",
    "gunzip",
    "parse_timeout",
    "status_headers",
]

RawHeaders = Iterable[tuple[bytes, bytes]]

_PREFIX = 5
_NAME = re.compile(r"[0-9a-z_.\-]+\Z")
_VALUE = re.compile(r"[\x20-\x7e]*\Z")
_RESERVED = frozenset({b"content-type", b"te"})
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])\Z")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_MAX_TIMEOUT_DIGITS = 99_999_999
_PLAIN = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")


def frame_message(message: bytes) -> bytes:
    """Return an uncompressed message with its five bytes of prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def gunzip(data: bytes, max_bytes: int) -> bytes:
    """Return what a gzip member holds; RESOURCE_EXHAUSTED over `max_bytes`, INTERNAL when damaged."""
    engine = zlib.decompressobj(31)
    try:
        plain = engine.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise GrpcError(GrpcCode.INTERNAL, f"gzip message cannot be decompressed: {error}") from None
    if len(plain) > max_bytes:
        raise GrpcError(
            GrpcCode.RESOURCE_EXHAUSTED, f"message decompresses to more than {max_bytes} bytes, the largest accepted"
        )
    if not engine.eof or engine.unused_data:
        raise GrpcError(GrpcCode.INTERNAL, "gzip message is not one whole gzip member")
    return plain


class MessageReader:
    """Cuts a stream of bytes into messages.

    `gzip` says whether the stream declared that encoding; `pending` is the size of the message not yet complete.
    """

    __slots__ = ("_buffer", "_gzip", "_max_bytes", "_need")

    def __init__(self, max_bytes: int, *, gzip: bool = False) -> None:
        self._max_bytes = max_bytes
        self._gzip = gzip
        self._buffer = bytearray()
        self._need = _PREFIX

    @property
    def pending(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that `data` completes, in order.

        RESOURCE_EXHAUSTED for one longer than `max_bytes`, INTERNAL for a malformed prefix or damaged compression.
        """
        buffer = self._buffer
        if not buffer:
            size = len(data)
            if (
                size >= _PREFIX
                and data[0] == 0
                and int.from_bytes(data[1:5], "big") == size - _PREFIX <= self._max_bytes
            ):
                return [data[_PREFIX:]]
        buffer += data
        if len(buffer) < self._need:
            return []
        return self._cut()

    def _cut(self) -> list[bytes]:
        buffer = self._buffer
        messages = []
        start, end = 0, len(buffer)
        while end - start >= _PREFIX:
            flag, size = struct.unpack_from(">BI", buffer, start)
            self._check_prefix(flag, size)
            stop = start + _PREFIX + size
            if stop > end:
                self._need = _PREFIX + size
                break
            payload = bytes(memoryview(buffer)[start + _PREFIX : stop])
            messages.append(gunzip(payload, self._max_bytes) if flag else payload)
            start = stop
        else:
            self._need = _PREFIX
        del buffer[:start]
        return messages

    def _check_prefix(self, flag: int, size: int) -> None:
        if flag > 1:
            raise GrpcError(GrpcCode.INTERNAL, f"message prefix has compressed flag {flag}, which must be 0 or 1")
        if flag and not self._gzip:
            raise GrpcError(GrpcCode.INTERNAL, "message is compressed but the stream declares no grpc-encoding")
        if size > self._max_bytes:
            raise GrpcError(
                GrpcCode.RESOURCE_EXHAUSTED, f"message of {size} bytes is over the {self._max_bytes} bytes accepted"
            )

    def finish(self) -> None:
        """Say that the stream has ended; INTERNAL when it ends inside a message."""
        if self._buffer:
            raise GrpcError(
                GrpcCode.INTERNAL, f"stream ended inside a message, {len(self._buffer)} bytes after its start"
            )


def parse_timeout(value: bytes) -> float:
    """Return the seconds of a `grpc-timeout` value; INVALID_ARGUMENT when malformed."""
    match = _TIMEOUT.match(value)
    if match is None:
        raise GrpcError(GrpcCode.INVALID_ARGUMENT, f"grpc-timeout {value!r} is not 1 to 8 digits and a unit of HMSmun")
    return int(match[1]) * _SECONDS[match[2]]


def format_timeout(seconds: float) -> bytes:
    """Return the `grpc-timeout` value of a duration, rounded up, in the finest unit that holds it."""
    nanoseconds = max(0, int(seconds * 1e9))
    for unit, size in ((b"n", 1), (b"u", 1_000), (b"m", 1_000_000), (b"S", 1_000_000_000), (b"M", 60_000_000_000)):
        count = -(-nanoseconds // size)
        if count <= _MAX_TIMEOUT_DIGITS:
            return b"%d%s" % (count, unit)
    return b"%dH" % min(-(-nanoseconds // 3_600_000_000_000), _MAX_TIMEOUT_DIGITS)


def encode_message(message: str) -> bytes:
    """Percent-encode a status message."""
    return quote_from_bytes(message.encode("utf-8", "replace"), safe=_PLAIN).encode("ascii")


def decode_message(value: bytes) -> str:
    """Decode a percent-encoded status message; what is malformed stays as it is."""
    return unquote_to_bytes(value).decode("utf-8", "replace")


def encode_metadata(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Return metadata as header fields; `ValueError` for a name or value that gRPC does not allow."""
    fields = []
    for name, value in metadata:
        if not _NAME.match(name) or name.startswith("grpc-") or name.encode() in _RESERVED:
            raise ValueError(f"metadata name {name!r} must be of 0-9 a-z _ . - and none of gRPC's own")
        if name.endswith("-bin"):
            raw = value.encode() if isinstance(value, str) else value
            fields.append((name.encode(), base64.b64encode(raw).rstrip(b"=")))
            continue
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not _VALUE.match(text):
            raise ValueError(f"metadata {name!r} has a value outside printable ASCII; use a name ending in -bin")
        fields.append((name.encode(), text.strip().encode()))
    return fields


def decode_metadata(headers: RawHeaders) -> list[tuple[str, bytes | str]]:
    """Return the caller's own metadata among header fields; a `-bin` value that is not base64 is left out."""
    metadata: list[tuple[str, bytes | str]] = []
    for name, value in headers:
        if name[:1] == b":" or name[:5] == b"grpc-" or name in _RESERVED:
            continue
        key = name.decode("latin-1")
        if name[-4:] != b"-bin":
            metadata.append((key, value.decode("latin-1")))
            continue
        for part in value.split(b","):
            piece = part.strip().rstrip(b"=")
            try:
                metadata.append((key, base64.b64decode(piece + b"=" * (-len(piece) % 4), validate=True)))
            except binascii.Error:
                continue
    return metadata


def status_headers(error: GrpcError) -> list[tuple[bytes, bytes]]:
    """Return the trailer fields of a status."""
    fields = [(b"grpc-status", b"%d" % error.code)]
    if error.message:
        fields.append((b"grpc-message", encode_message(error.message)))
    if error.trailers:
        for name, value in encode_metadata([pair for pair in error.trailers if not pair[0].startswith("grpc-")]):
            fields.append((name, value))
        fields += [
            (name.encode(), base64.b64encode(value if isinstance(value, bytes) else value.encode()).rstrip(b"="))
            for name, value in error.trailers
            if name == "grpc-status-details-bin"
        ]
    return fields


def decode_status(headers: RawHeaders) -> GrpcError | None:
    """Return the status among header fields, OK too; None when there is no `grpc-status`."""
    pairs = list(headers)
    fields = dict(pairs)
    value = fields.get(b"grpc-status")
    if value is None:
        return None
    number = int(value) if value.isdigit() and len(value) <= 2 else -1
    code = GrpcCode(number) if 0 <= number <= 16 else GrpcCode.UNKNOWN
    message = decode_message(fields.get(b"grpc-message", b""))
    if code is GrpcCode.UNKNOWN and number != GrpcCode.UNKNOWN:
        message = f"unknown grpc-status {value[:20]!r}: {message}"
    trailers = decode_metadata(pairs)
    details = fields.get(b"grpc-status-details-bin")
    if details is not None:
        trailers += [("grpc-status-details-bin", v) for _, v in decode_metadata([(b"x-bin", details)])]
    return GrpcError(code, message, trailers)


def goaway_frame(error_code: int, debug_data: bytes) -> bytes:
    """Return a GOAWAY frame (RFC 9113, section 6.8) for a connection whose engine can send no more."""
    body = struct.pack(">II", 0, error_code) + debug_data
    return len(body).to_bytes(3, "big") + b"\x07\0" + bytes(4) + body
