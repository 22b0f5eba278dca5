from __future__ import annotations

import gzip
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.grpc import GrpcCode, GrpcError
from pilothouse.foundation.grpc.wire import (
    MessageReader,
    decode_message,
    decode_metadata,
    decode_status,
    encode_message,
    encode_metadata,
    format_timeout,
    frame_message,
    gunzip,
    parse_timeout,
    status_headers,
)

NAMES = st.from_regex(r"[a-z][a-z0-9_.\-]{0,10}", fullmatch=True).filter(
    lambda name: not name.startswith("grpc-") and not name.endswith("-bin") and name not in {"te", "content-type"}
)
TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20).map(str.strip)
PAIRS = st.one_of(st.tuples(NAMES, TEXT), st.tuples(NAMES.map(lambda name: name + "-bin"), st.binary(max_size=20)))


def in_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in itertools.pairwise(edges)]


@given(st.lists(st.tuples(st.binary(max_size=50), st.booleans()), max_size=8), st.lists(st.integers(0, 500)))
def test_messages_come_out_however_they_are_cut(messages: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    wire = b""
    for message, compress in messages:
        body = gzip.compress(message) if compress else message
        wire += bytes([compress]) + len(body).to_bytes(4, "big") + body
    reader = MessageReader(100, gzip=True)
    found = [message for piece in in_pieces(wire, cuts) for message in reader.feed(piece)]
    assert found == [message for message, _ in messages]
    assert reader.pending == 0
    reader.finish()


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)), st.booleans())
def test_any_bytes_are_cut_or_refused(data: bytes, cuts: list[int], gzipped: bool) -> None:
    reader = MessageReader(16, gzip=gzipped)
    refusal: GrpcError | None = None
    try:
        for piece in in_pieces(data, cuts):
            assert all(len(message) <= 16 for message in reader.feed(piece))
        reader.finish()
    except GrpcError as error:
        refusal = error
    assert refusal is None or refusal.code in {GrpcCode.INTERNAL, GrpcCode.RESOURCE_EXHAUSTED}
    assert reader.pending <= len(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\0\0\0\x11", GrpcCode.RESOURCE_EXHAUSTED),
        (b"\2\0\0\0\1a", GrpcCode.INTERNAL),
        (b"\1\0\0\0\1a", GrpcCode.INTERNAL),
    ],
)
def test_a_bad_prefix_is_refused_before_its_body(data: bytes, code: GrpcCode) -> None:
    with pytest.raises(GrpcError) as caught:
        MessageReader(16).feed(data)
    assert caught.value.code is code


def test_a_stream_that_ends_inside_a_message_is_refused() -> None:
    reader = MessageReader(16)
    assert reader.feed(frame_message(b"abc")[:-1]) == []
    with pytest.raises(GrpcError, match="ended inside a message, 7 bytes"):
        reader.finish()


def test_a_small_gzip_that_holds_much_is_refused() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(GrpcError) as caught:
        gunzip(bomb, 1000)
    assert caught.value.code is GrpcCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "damage", [b"", b"abc", gzip.compress(b"abc", mtime=0)[:-1], gzip.compress(b"abc", mtime=0) + b"x"]
)
def test_damaged_gzip_is_refused(damage: bytes) -> None:
    with pytest.raises(GrpcError) as caught:
        gunzip(damage, 1000)
    assert caught.value.code is GrpcCode.INTERNAL


@given(st.text())
def test_messages_survive_percent_encoding(message: str) -> None:
    clean = message.encode("utf-8", "replace").decode()
    wire = encode_message(message)
    assert all(0x20 <= byte <= 0x7E for byte in wire)
    assert decode_message(wire) == clean


@given(st.binary())
def test_any_bytes_decode_as_a_message(wire: bytes) -> None:
    assert isinstance(decode_message(wire), str)


@given(st.lists(PAIRS, max_size=6))
def test_metadata_survives(pairs: list[tuple[str, bytes | str]]) -> None:
    assert decode_metadata(encode_metadata(pairs)) == pairs


@pytest.mark.parametrize(
    ("name", "value"),
    [("Upper", "x"), ("te", "x"), ("grpc-status", "0"), (":path", "/"), ("a", "line\nbreak"), ("a", "é"), ("", "")],
)
def test_metadata_that_the_wire_cannot_carry_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="metadata"):
        encode_metadata([(name, value)])


def test_binary_metadata_is_read_with_and_without_padding_and_in_lists() -> None:
    headers = [(b"a-bin", b"YQ=="), (b"b-bin", b"YQ, Yg"), (b"c-bin", b"!!")]
    assert decode_metadata(headers) == [("a-bin", b"a"), ("b-bin", b"a"), ("b-bin", b"b")]


@given(st.floats(0, 1e12))
def test_a_timeout_is_never_shortened_and_hardly_lengthened(seconds: float) -> None:
    wire = format_timeout(seconds)
    assert len(wire) <= 9
    read = parse_timeout(wire)
    limit = 99_999_999 * 3600.0
    assert min(seconds, limit) - 1e-9 - seconds * 1e-12 <= read <= seconds * 1.0001 + 1e-8


@pytest.mark.parametrize("value", [b"", b"1", b"S", b"123456789S", b"-1S", b"1s", b"1S ", b"\xff"])
def test_a_malformed_timeout_is_refused(value: bytes) -> None:
    with pytest.raises(GrpcError, match="grpc-timeout"):
        parse_timeout(value)


def test_a_status_survives_with_its_trailers() -> None:
    error = GrpcError(GrpcCode.ABORTED, "näh %", [("reason", "x"), ("grpc-status-details-bin", b"\0\1")])
    found = decode_status(status_headers(error))
    assert found is not None
    assert (found.code, found.message, list(found.trailers)) == (error.code, error.message, list(error.trailers))


@pytest.mark.parametrize("value", [b"17", b"x", b"-1", b"999999999999"])
def test_an_unknown_status_is_unknown(value: bytes) -> None:
    found = decode_status([(b"grpc-status", value)])
    assert found is not None
    assert found.code is GrpcCode.UNKNOWN
    assert "unknown grpc-status" in found.message
    assert decode_status([(b"other", b"0")]) is None
