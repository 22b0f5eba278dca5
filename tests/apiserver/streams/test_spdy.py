"""SPDY/3.1 without IO: frames, windows, ends, and peers that mean harm."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.streams import spdy, spdyframes
from pilothouse.apiserver.streams.spdy import Accepted, Data, Event, GoneAway, Opened, Pong, Reset, SpdyConnection
from pilothouse.apiserver.streams.spdyframes import DICTIONARY, FrameReader, FrameWriter, SpdyError

FIRST_WINDOW = 1 << 16


def pass_on(sender: SpdyConnection, receiver: SpdyConnection) -> list[Event]:
    return list(receiver.receive(sender.take()))


def frames(data: bytes) -> list[spdyframes.Frame]:
    return list(FrameReader().feed(data))


def pair() -> tuple[SpdyConnection, SpdyConnection]:
    return SpdyConnection(server=False), SpdyConnection(server=True)


def control(kind: int, payload: bytes, flags: int = 0, version: int = 3) -> bytes:
    return struct.pack(">HHI", 0x8000 | version, kind, flags << 24 | len(payload)) + payload


def header_block(plain: bytes) -> bytes:
    deflate = zlib.compressobj(9, zdict=DICTIONARY)
    return deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)


def test_the_dictionary_is_that_of_the_specification() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_a_frame_of_spdystream_is_read() -> None:
    # SYN_STREAM of stream 1 as moby/spdystream writes it: streamtype: error, compressed at level 9.
    plain = struct.pack(">I", 1) + struct.pack(">I", 10) + b"streamtype" + struct.pack(">I", 5) + b"error"
    payload = struct.pack(">IIBB", 1, 0, 0, 0) + header_block(plain)
    assert frames(control(1, payload)) == [spdyframes.SynStream(1, {"streamtype": ("error",)})]


text = st.text(st.characters(max_codepoint=255, exclude_characters="\0"), max_size=20)
names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12)


@given(
    st.lists(st.dictionaries(names, text, max_size=5), min_size=1, max_size=5),
    st.binary(max_size=300),
    st.integers(1, 50),
)
def test_frames_come_back_however_they_are_cut(blocks: list[dict[str, str]], data: bytes, step: int) -> None:
    writer, reader = FrameWriter(), FrameReader()
    sent = b"".join(writer.syn_stream(2 * place + 1, block) for place, block in enumerate(blocks))
    sent += writer.data(1, data, fin=True) + writer.ping(7) + writer.settings({7: 1000}) + writer.rst_stream(1, 5)
    got: list[spdyframes.Frame] = []
    for start in range(0, len(sent), step):
        got += reader.feed(sent[start : start + step])
    opened = [frame.headers for frame in got if isinstance(frame, spdyframes.SynStream)]
    assert opened == [{name: (value,) for name, value in block.items()} for block in blocks]
    parts = [frame for frame in got if isinstance(frame, spdyframes.DataPart)]
    assert b"".join(part.data for part in parts) == data
    assert [part.fin for part in parts] == [False] * (len(parts) - 1) + [True]
    assert got[-3:] == [spdyframes.Ping(7), spdyframes.Settings({7: 1000}), spdyframes.RstStream(1, 5)]


@given(st.binary(max_size=400))
def test_any_bytes_are_frames_or_a_broken_protocol(data: bytes) -> None:
    connection = SpdyConnection(server=True)
    try:
        list(connection.receive(data))
    except SpdyError:
        assert isinstance(frames(connection.take())[-1], spdyframes.GoAway)


@given(st.integers(1, 12), st.binary(max_size=60), st.integers(0, 255))
def test_any_control_frame_is_one_or_a_broken_protocol(kind: int, payload: bytes, flags: int) -> None:
    try:
        list(SpdyConnection(server=True).receive(control(kind, payload, flags)))
    except SpdyError:
        return


BOMB = struct.pack(">I", 1) + struct.pack(">I", 1) + b"a" + struct.pack(">I", 1 << 24) + bytes(1 << 24)


@pytest.mark.parametrize(
    "data",
    [
        control(1, struct.pack(">IIBB", 1, 0, 0, 0) + header_block(BOMB)),
        control(1, struct.pack(">IIBB", 1, 0, 0, 0) + header_block(struct.pack(">I", 1 << 30))),
        control(1, struct.pack(">IIBB", 1, 0, 0, 0) + header_block(struct.pack(">II", 1, 1 << 30))),
        control(1, struct.pack(">IIBB", 1, 0, 0, 0) + b"no zlib"),
        control(1, struct.pack(">IIBB", 0, 0, 0, 0) + header_block(struct.pack(">I", 0))),
        control(1, struct.pack(">IIBB", 1, 0, 0, 0) + header_block(struct.pack(">I", 0) + b"more")),
        control(1, struct.pack(">IIBB", 1, 0, 0, 0) + header_block(struct.pack(">I", 2) + b"\0\0\0\1a\0\0\0\0" * 2)),
        control(1, b"short"),
        control(4, struct.pack(">I", 1 << 30)),
        control(4, struct.pack(">III", 1, 7, 1 << 31)),
        control(6, b""),
        control(12, b""),
        control(6, b"\0\0\0\1", version=2),
        struct.pack(">II", 0x80030001, 1 << 20),
        struct.pack(">II", 0, 4) + b"abcd",
    ],
    ids=range(15),
)
def test_what_breaks_the_protocol_ends_the_connection_cheaply(data: bytes) -> None:
    connection = SpdyConnection(server=True)
    with pytest.raises(SpdyError):
        list(connection.receive(data))
    assert isinstance(frames(connection.take())[-1], spdyframes.GoAway)


def test_a_stream_is_opened_answered_and_ended_by_both() -> None:
    client, server = pair()
    stream = client.open({"streamtype": "data"})
    assert pass_on(client, server) == [Opened(1, {"streamtype": ("data",)})]
    server.accept(stream)
    assert pass_on(server, client) == [Accepted(1)]
    client.send(stream, b"ask", fin=True)
    assert pass_on(client, server) == [Data(1, b"ask", fin=True)]
    assert server.is_open(1)
    server.send(stream, b"told")
    server.send(stream, b"", fin=True)
    assert pass_on(server, client) == [Data(1, b"told"), Data(1, b"", fin=True)]
    assert not server.is_open(1)
    assert not client.is_open(1)
    server.send(stream, b"late")
    assert server.take() == b""


def test_a_reset_ends_both_directions() -> None:
    client, server = pair()
    stream = client.open({})
    pass_on(client, server)
    server.reset(stream)
    client.send(stream, b"on its way")
    assert pass_on(server, client) == [Reset(1, spdy.CANCEL)]
    assert pass_on(client, server) == []


def test_sending_after_the_end_is_answered_with_a_reset() -> None:
    _, server = pair()
    writer = FrameWriter()
    sent = writer.syn_stream(1, {}, fin=True) + writer.data(1, b"more")
    assert list(server.receive(sent)) == [Opened(1, {}, fin=True), Reset(1, spdy.STREAM_ALREADY_CLOSED)]
    assert frames(server.take()) == [spdyframes.RstStream(1, spdy.STREAM_ALREADY_CLOSED)]


@pytest.mark.parametrize("second", [1, 2, 4])
def test_stream_numbers_are_odd_and_grow(second: int) -> None:
    writer, server = FrameWriter(), SpdyConnection(server=True)
    assert list(server.receive(writer.syn_stream(3, {}) + writer.syn_stream(second, {}))) == [Opened(3, {})]
    assert frames(server.take()) == [spdyframes.RstStream(second, spdy.PROTOCOL_ERROR)]


def test_too_many_streams_are_refused() -> None:
    writer, server = FrameWriter(), SpdyConnection(server=True)
    sent = b"".join(writer.syn_stream(2 * place + 1, {}) for place in range(300))
    assert len(list(server.receive(sent))) == spdy.MAX_STREAMS
    assert frames(server.take())[0] == spdyframes.RstStream(513, spdy.REFUSED_STREAM)


def test_pings_of_the_peer_come_back_and_ours_are_told() -> None:
    client, server = pair()
    number = client.ping()
    assert pass_on(client, server) == []
    assert pass_on(server, client) == [Pong(number)]


def test_a_peer_that_went_takes_no_more_streams() -> None:
    client, server = pair()
    server.go_away()
    assert pass_on(server, client) == [GoneAway(0)]
    with pytest.raises(SpdyError):
        client.open({})


def sizes(found: Iterable[spdyframes.Frame]) -> int:
    return sum(len(frame.data) for frame in found if isinstance(frame, spdyframes.DataPart))


def test_peers_that_do_not_know_windows_are_sent_all() -> None:
    client, server = pair()
    stream = client.open({})
    pass_on(client, server)
    server.send(stream, bytes(1 << 20))
    assert server.waiting(stream) == 0
    assert sizes(frames(server.take())) == 1 << 20


def test_windows_hold_once_the_peer_shows_that_it_knows_them() -> None:
    client, server = pair()
    writer = FrameWriter()
    stream = client.open({})
    pass_on(client, server)
    list(server.receive(writer.settings({7: 1000})))
    server.send(stream, bytes(1500), fin=True)
    reader = FrameReader()
    assert sizes(reader.feed(server.take())) == 1000
    assert server.waiting(stream) == 500
    list(server.receive(writer.window_update(stream, 400)))
    assert sizes(reader.feed(server.take())) == 400
    list(server.receive(writer.settings({7: 1050})))
    assert sizes(reader.feed(server.take())) == 50
    list(server.receive(writer.window_update(stream, 1000)))
    (last,) = reader.feed(server.take())
    assert last == spdyframes.DataPart(stream, bytes(50), fin=True)


def test_the_window_of_the_connection_holds_where_it_is_used() -> None:
    client, server = pair()
    writer = FrameWriter()
    stream = client.open({})
    pass_on(client, server)
    list(server.receive(writer.settings({7: 1 << 20}) + writer.window_update(0, 10)))
    server.send(stream, bytes(100_000))
    assert sizes(frames(server.take())) == FIRST_WINDOW + 10


def test_a_window_that_overflows_resets_the_stream() -> None:
    client, server = pair()
    stream = client.open({})
    pass_on(client, server)
    found = list(server.receive(FrameWriter().window_update(stream, (1 << 31) - 1)))
    assert found == [Reset(stream, spdy.FLOW_CONTROL_ERROR)]


def test_our_window_opens_as_bytes_are_consumed() -> None:
    client, server = pair()
    stream = client.open({})
    pass_on(client, server)
    server.acknowledge(stream, FIRST_WINDOW // 2 - 1)
    assert server.take() == b""
    server.acknowledge(stream, 1)
    assert frames(server.take()) == [spdyframes.WindowUpdate(stream, FIRST_WINDOW // 2)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000)), max_size=40))
def test_bytes_arrive_whole_and_in_order_under_any_windows(steps: list[tuple[int, int]]) -> None:
    client, server = pair()
    writer = FrameWriter()
    stream = client.open({})
    pass_on(client, server)
    list(server.receive(writer.settings({7: 100})))
    reader, sent, got, allowed = FrameReader(), b"", b"", 100
    for action, count in steps:
        if action:
            data = bytes((len(sent) + place) % 251 for place in range(count))
            sent += data
            server.send(stream, data)
        elif count:
            allowed += count
            list(server.receive(writer.window_update(stream, count)))
        got += b"".join(frame.data for frame in reader.feed(server.take()) if isinstance(frame, spdyframes.DataPart))
        assert got == sent[:allowed]
        assert server.waiting(stream) == len(sent) - len(got)
