"""HTTP/1.1 framing without sockets: heads, the chunked coding, PROXY headers, TLS greetings."""

from __future__ import annotations

import contextlib
import functools
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.traffic.plane.chunks import ChunkScanner
from pilothouse.traffic.plane.greeting import read_greeting
from pilothouse.traffic.plane.heads import HeadReader
from pilothouse.traffic.plane.http import Body, Refused, Request, Response
from pilothouse.traffic.plane.proxyprotocol import Source, read_proxy_header, write_proxy_header

HOST = b"Host: a\r\n"
TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABC-_!#$%&'*+.^`|~09", min_size=1, max_size=12).map(str.encode)
VALUE = st.binary(max_size=40).filter(lambda raw: not any(byte < 32 or byte == 127 for byte in raw)).map(bytes.strip)
CALM = TOKEN.filter(
    lambda name: (
        name.lower()
        not in {
            b"host",
            b"te",
            b"expect",
            b"upgrade",
            b"connection",
            b"content-length",
            b"transfer-encoding",
            b"keep-alive",
        }
    )
)


def read(*lines: bytes, method: bytes = b"GET", target: bytes = b"/", version: bytes = b"HTTP/1.1") -> Request:
    return HeadReader().request(method + b" " + target + b" " + version + b"\r\n" + b"".join(lines) + b"\r\n")


@given(st.lists(st.tuples(CALM, VALUE), max_size=20))
def test_fields_come_as_they_were_sent(fields: list[tuple[bytes, bytes]]) -> None:
    lines = [name + b": " + value + b"\r\n" for name, value in fields]
    request = HeadReader().request(b"GET / HTTP/1.1\r\n" + HOST + b"".join(lines) + b"\r\n")
    assert request.fields == [(name.lower(), value.strip(b" \t")) for name, value in fields]


@given(st.binary(min_size=1, max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        status = 200 if HeadReader().request(data + b"\r\n\r\n").target else 0
    except Refused as error:
        status = error.status
    assert status in {200, 400, 405, 417, 431, 501, 505}


@given(st.integers(0, 200), st.binary(min_size=1, max_size=2))
def test_a_byte_too_many_never_moves_a_boundary(at: int, extra: bytes) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nX-A: b\r\n\r\n"
    at %= len(head) - 4
    try:
        request = HeadReader().request(head[:at] + extra + head[at:])
    except Refused:
        return
    named = [line.split(b":")[0].lower() for line in (head[:at] + extra + head[at:]).split(b"\r\n")]
    assert request.length == 5 or b"content-length" not in named or extra.isdigit()


BAD = {
    "two lengths": (b"Content-Length: 1\r\nContent-Length: 2\r\n", 400),
    "the same length twice": (b"Content-Length: 1\r\nContent-Length: 1\r\n", 400),
    "lengths in a list": (b"Content-Length: 1, 1\r\n", 400),
    "signed": (b"Content-Length: +1\r\n", 400),
    "negative": (b"Content-Length: -1\r\n", 400),
    "hexadecimal": (b"Content-Length: 0x1\r\n", 400),
    "huge": (b"Content-Length: 99999999999999999999\r\n", 400),
    "both": (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
    "both, the other way": (b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
    "coding twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
    "coding in a list": (b"Transfer-Encoding: gzip, chunked\r\n", 501),
    "odd coding": (b"Transfer-Encoding: xchunked\r\n", 400),
    "space before the colon": (b"Content-Length : 1\r\n", 400),
    "folded": (b"X-A: b\r\n c\r\n", 400),
    "folded first": (b" X-A: b\r\n", 400),
    "bare LF": (b"X-A: b\nX-B: c\r\n", 400),
    "bare CR": (b"X-A: b\rX-B: c\r\n", 400),
    "NUL": (b"X-A: b\0c\r\n", 400),
    "no colon": (b"X-A\r\n", 400),
    "no name": (b": b\r\n", 400),
    "two hosts": (b"Host: b\r\n", 400),
    "unknown expectation": (b"Expect: magic\r\n", 417),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_fields(name: str) -> None:
    line, status = BAD[name]
    with pytest.raises(Refused) as refused:
        read(HOST, line, method=b"POST")
    assert refused.value.status == status


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET /\tx HTTP/1.1", 400),
        (b"GET / HTTP/1.2", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET /", 505),
        (b"GET x HTTP/1.1", 400),
        (b"GET /#a HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET http://b/ HTTP/1.1", 400),
        (b"GET ftp://a/ HTTP/1.1", 400),
        (b"GET http:///x HTTP/1.1", 400),
        (b"CONNECT a:1 HTTP/1.1", 405),
        (b"get / HTTP/1.1", 501),
        (b"G@T / HTTP/1.1", 501),
        (b"GET /\xff HTTP/1.1", 400),
    ],
)
def test_refused_request_lines(line: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        HeadReader().request(line + b"\r\n" + HOST + b"\r\n")
    assert refused.value.status == status


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"a@b", b"a,b", b"", b"[::1", b"a:99999999", b"\xff"])
def test_refused_hosts(host: bytes) -> None:
    if not host:
        assert read(b"Host: \r\n").host == ""
        return
    with pytest.raises(Refused):
        read(b"Host: " + host + b"\r\n")


def test_hosts_and_targets() -> None:
    assert read(b"Host: WWW.Example.COM.:8080\r\n").host == "www.example.com"
    assert read(b"Host: [::1]:80\r\n").host == "[::1]"
    absolute = read(HOST, target=b"http://A/x?y")
    assert (absolute.target, absolute.path, absolute.query, absolute.host) == (b"/x?y", "/x", "y", "a")
    assert read(HOST, target=b"http://a?x").target == b"/?x"
    assert read(HOST, method=b"OPTIONS", target=b"*").target == b"*"
    with pytest.raises(Refused):
        HeadReader().request(b"GET / HTTP/1.1\r\n\r\n")
    assert HeadReader().request(b"GET / HTTP/1.0\r\n\r\n").host == ""


def test_framing_of_requests() -> None:
    assert read(HOST, b"Content-Length: 0\r\n", method=b"POST").body is Body.NONE
    sized = read(HOST, b"Content-Length: 007\r\n", method=b"POST")
    assert (sized.body, sized.length) == (Body.LENGTH, 7)
    assert read(HOST, b"Transfer-Encoding: Chunked\r\n", method=b"POST").body is Body.CHUNKED
    with pytest.raises(Refused):
        read(HOST, b"Transfer-Encoding: chunked\r\n", method=b"POST", version=b"HTTP/1.0")


def test_upgrades() -> None:
    asked = b"Connection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n"
    assert read(HOST, asked).upgrade == b"websocket"
    assert read(HOST, b"Upgrade: websocket\r\n").upgrade == b""
    assert read(HOST, b"Connection: Upgrade\r\nUpgrade: h2c\r\n").upgrade == b""
    assert read(HOST, asked, b"Content-Length: 3\r\n", method=b"POST").upgrade == b""


def test_one_reader_reads_after_whatever_came_before() -> None:
    reader = HeadReader()
    plain = b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"
    for other in (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
    ):
        with contextlib.suppress(Refused):
            reader.request(other)
        assert reader.request(plain).target == b"/x"
        assert reader.request(plain).target == b"/x"


class TestResponses:
    def read(self, *lines: bytes, status: bytes = b"200 OK", method: bytes = b"GET") -> Response:
        return HeadReader().response(b"HTTP/1.1 " + status + b"\r\n" + b"".join(lines) + b"\r\n", method)

    def test_framing(self) -> None:
        assert self.read(b"Content-Length: 4\r\n").length == 4
        assert self.read(b"Transfer-Encoding: chunked\r\n").body is Body.CHUNKED
        assert self.read().body is Body.CLOSE
        assert not self.read().persistent
        assert self.read(b"Content-Length: 4\r\n", method=b"HEAD").body is Body.NONE
        assert self.read(b"Content-Length: 4\r\n", status=b"304 No").body is Body.NONE
        assert self.read(status=b"204 No").body is Body.NONE

    @pytest.mark.parametrize(
        "lines",
        [
            b"Content-Length: 1\r\nContent-Length: 1\r\n",
            b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"X: \0\r\n",
            b"X : y\r\n",
            b"X: a\n\r\n",
        ],
    )
    def test_refused(self, lines: bytes) -> None:
        with pytest.raises(Refused) as refused:
            self.read(lines)
        assert refused.value.status == 502


def chunked(pieces: list[bytes], trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n" + trailers + b"\r\n"


@given(
    st.lists(st.binary(max_size=50), max_size=8),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.binary(max_size=20),
)
def test_chunks_however_they_arrive(pieces: list[bytes], cuts: list[int], beyond: bytes) -> None:
    data = chunked(pieces, b"X-A: b\r\n") + beyond
    scanner = ChunkScanner()
    payload: list[memoryview] = []
    passed, kept, at, turn = b"", b"", 0, 0
    while not scanner.done:
        size = cuts[turn % len(cuts)]
        turn += 1
        kept += data[at : at + size]
        at += size
        count = scanner.feed(kept, payload)
        passed, kept = passed + kept[:count], kept[count:]
    assert b"".join(payload) == b"".join(pieces)
    assert scanner.trailers == [(b"x-a", b"b")]
    assert passed == chunked(pieces, b"X-A: b\r\n")
    assert (kept + data[at:]) == beyond


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"0x1\r\na\r\n",
        b" 1\r\na\r\n",
        b"1 \r\na\r\n",
        b"1\na\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n",
        b"1\r\na\r0\r\n",
        b"1;a\nb\r\na\r\n",
        b"1;\0\r\na\r\n",
        b"1" * 20 + b"\r\n",
        b"1;" + b"a" * 300,
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\nX A: b\r\n\r\n",
        b"0\r\n" + b"X: " + b"a" * 9000,
        b"\r\n",
        b"",
    ],
)
def test_refused_chunks(data: bytes) -> None:
    if not data:
        assert ChunkScanner().feed(data) == 0
        return
    with pytest.raises(Refused) as refused:
        ChunkScanner(502).feed(data)
    assert refused.value.status == 502


class TestProxyProtocol:
    @given(st.ip_addresses(), st.integers(0, 65535), st.binary(max_size=20))
    def test_what_is_written_is_read(self, address: object, port: int, rest: bytes) -> None:
        source = Source(str(address), port)
        header = write_proxy_header(source, source)
        assert read_proxy_header(header + rest) == (source, len(header))
        assert all(read_proxy_header(header[:cut]) is None for cut in range(len(header)))

    def test_version_2(self) -> None:
        start = b"\r\n\r\n\0\r\nQUIT\n"
        header = start + b"\x21\x11\x00\x0c" + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + b"\x1f\x90\x00\x50"
        assert read_proxy_header(header + b"rest") == (Source("10.0.0.1", 8080), 28)
        assert all(read_proxy_header(header[:cut]) is None for cut in range(len(header)))
        six = start + b"\x21\x21\x00\x24" + b"\0" * 15 + b"\x01" + b"\0" * 16 + b"\x00\x09\x00\x50"
        assert read_proxy_header(six) == (Source("::1", 9), 52)
        assert read_proxy_header(start + b"\x20\x00\x00\x00") == (Source("", 0), 16)

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n".replace(b"1 99999", b"99999 1"),
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
            b"PROXY " + b"x" * 120,
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x01a",
        ],
    )
    def test_refused(self, data: bytes) -> None:
        with pytest.raises(Refused):
            read_proxy_header(data)


@functools.cache
def greeting_of(name: str | None, *protocols: str) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


class TestGreetings:
    def test_name_and_protocols(self) -> None:
        data = greeting_of("WWW.example.com", "h2", "http/1.1")
        assert read_greeting(data) == ("www.example.com", ("h2", "http/1.1"))
        assert all(read_greeting(data[:cut]) is None for cut in range(len(data)))
        assert read_greeting(greeting_of(None)) == ("", ())

    @given(st.binary(min_size=6, max_size=200))
    def test_any_bytes_are_none_or_refused(self, data: bytes) -> None:
        with contextlib.suppress(Refused):
            assert read_greeting(data) is None or data[0] == 22

    @given(st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        greeting = bytearray(greeting_of("a.example", "h2"))
        greeting[data.draw(st.integers(5, len(greeting) - 1))] ^= data.draw(st.integers(1, 255))
        with contextlib.suppress(Refused):
            read_greeting(bytes(greeting))
