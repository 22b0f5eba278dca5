from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.http.heads import HeadReader, Malformed, read_fields, split_target


def read(head: bytes) -> tuple[str, str, str, str]:
    found = HeadReader(32 << 10).read(head)
    return found.method, found.target, found.path, found.query_text


HOST = b"\r\nHost: x"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"GET / HTTP/1.1", ("GET", "/", "/", "")),
        (b"GET /a%20b?c=%20 HTTP/1.1", ("GET", "/a%20b?c=%20", "/a b", "c=%20")),
        (b"GET /a%2520 HTTP/1.1", ("GET", "/a%2520", "/a%20", "")),
        (b"GET /a/../b//c HTTP/1.1", ("GET", "/a/../b//c", "/a/../b//c", "")),
        (b"GET http://host:80/a?b HTTP/1.1", ("GET", "/a?b", "/a", "b")),
        (b"GET HTTPS://host HTTP/1.1", ("GET", "/", "/", "")),
        (b"GET http://host?b HTTP/1.1", ("GET", "/?b", "/", "b")),
        (b"OPTIONS * HTTP/1.1", ("OPTIONS", "*", "*", "")),
        (b"M-SEARCH /%C3%A9 HTTP/1.1", ("M-SEARCH", "/%C3%A9", "/é", "")),
        ("GET /é HTTP/1.1".encode(), ("GET", "/é", "/é", "")),
        (b"GET /a?b?c HTTP/1.1", ("GET", "/a?b?c", "/a", "b?c")),
    ],
)
def test_targets(line: bytes, wanted: tuple[str, str, str, str]) -> None:
    assert read(line + HOST) == wanted


@pytest.mark.parametrize(
    ("head", "status", "text"),
    [
        (b"GET / HTTP/1.1", 400, "missing required Host header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400, "too many Host headers"),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b", 400, "too many Host headers"),
        (b"GET  / HTTP/1.1" + HOST, 400, "malformed request line"),
        (b"GET /" + HOST, 400, "malformed request line"),
        (b"GET / HTTP/1.1 " + HOST, 400, "malformed request line"),
        (b" GET / HTTP/1.1" + HOST, 400, "malformed request line"),
        (b"GET\t/\tHTTP/1.1" + HOST, 400, "malformed request line"),
        (b"GET /\xff HTTP/1.1" + HOST, 400, "malformed request line"),
        (b"GET / HTTP/2.0" + HOST, 505, "unsupported protocol version"),
        (b"GET / HTTP/1.2" + HOST, 505, "unsupported protocol version"),
        (b"GET / http/1.1" + HOST, 400, "malformed HTTP version"),
        (b"G(T / HTTP/1.1" + HOST, 400, "invalid method"),
        (b" / HTTP/1.1" + HOST, 400, "invalid method"),
        (b"GET /\x00 HTTP/1.1" + HOST, 400, "invalid character in request target"),
        (b"GET /\x7f HTTP/1.1" + HOST, 400, "invalid character in request target"),
        (b"GET /\r HTTP/1.1" + HOST, 400, "invalid character in request target"),
        (b"GET /\n HTTP/1.1" + HOST, 400, "invalid character in request target"),
        (b"GET a HTTP/1.1" + HOST, 400, "invalid URI for request"),
        (b"GET * HTTP/1.1" + HOST, 400, "invalid URI for request"),
        (b"CONNECT a:1 HTTP/1.1" + HOST, 400, "invalid URI for request"),
        (b"GET ftp://a/ HTTP/1.1" + HOST, 400, "invalid URI for request"),
        (b"GET /%zz HTTP/1.1" + HOST, 400, "invalid URL escape"),
        (b"GET /%a HTTP/1.1" + HOST, 400, "invalid URL escape"),
        (b"GET /%ff HTTP/1.1" + HOST, 400, "path is not valid UTF-8"),
        (b"GET /%c0%af HTTP/1.1" + HOST, 400, "path is not valid UTF-8"),
        (b"GET /a%00 HTTP/1.1" + HOST, 400, "path contains NUL"),
        (b"GET /%b HTTP/1.1" % (b"a" * (32 << 10)) + HOST, 414, "request target too long"),
        (b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked", 400, "chunked coding in HTTP/1.0"),
    ],
)
def test_malformed_heads(head: bytes, status: int, text: str) -> None:
    with pytest.raises(Malformed) as found:
        read(head)
    assert (found.value.status, str(found.value)) == (status, text)


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"A : b", 400),
        (b" A: b", 400),
        (b": b", 400),
        (b"A", 400),
        (b"A: b\r\n c", 400),
        (b"A: b\r\n\tc", 400),
        (b"A: b\nB: c", 400),
        (b"A: b\rB: c", 400),
        (b"A: b\x00", 400),
        (b"A: b\x7f", 400),
        (b"A\x00: b", 400),
        (b"\xc3\xa9: b", 400),
        (b"A: b\r\n\r", 400),
        (b"Content-Length: 1\r\nContent-Length: 1", 400),
        (b"Content-Length: 1\r\nContent-Length: 2", 400),
        (b"Content-Length: 1, 1", 400),
        (b"Content-Length: +1", 400),
        (b"Content-Length: -1", 400),
        (b"Content-Length: 0x1", 400),
        (b"Content-Length: 1 1", 400),
        (b"Content-Length:", 400),
        ("Content-Length: \N{ARABIC-INDIC DIGIT ONE}".encode(), 400),
        (b"Content-Length: 1111111111111111111", 400),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: chunked\r\ncontent-length: 0", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: gzip, chunked", 501),
        (b"Transfer-Encoding: chunked, identity", 501),
        (b"Transfer-Encoding: \x0bchunked", 400),
        (b"Transfer-Encoding: identity", 501),
        (b"Expect: something", 417),
        (b"Expect: 100-continue\r\nExpect: 100-continue", 417),
    ],
)
def test_malformed_fields(block: bytes, status: int) -> None:
    with pytest.raises(Malformed) as found:
        read_fields(block)
    assert found.value.status == status


def test_fields_are_read_in_order_and_the_first_counts() -> None:
    found = read_fields(b"HOST: x\r\nX-A:1\r\nx-a: \t2 \r\nConnection: Close, keep-alive\r\nContent-Length: 007")
    assert found.headers == {"host": "x", "x-a": "1", "connection": "Close, keep-alive", "content-length": "007"}
    assert found.header_list[1:3] == (("x-a", "1"), ("x-a", "2"))
    assert (found.length, found.close, found.keep_alive, found.hosts) == (7, True, True, 1)


def test_values_are_utf8_or_latin1() -> None:
    assert read_fields("A: é".encode()).headers["a"] == "é"
    assert read_fields("A: é".encode("latin-1")).headers["a"] == "é"


def test_what_is_remembered_is_bounded_and_the_same() -> None:
    reader = HeadReader(1000)
    first = reader.read(b"GET / HTTP/1.1\r\nHost: x\r\nA: 0").fields
    assert reader.read(b"PUT /b HTTP/1.1\r\nHost: x\r\nA: 0").fields is first
    for number in range(5000):
        reader.read(b"GET / HTTP/1.1\r\nHost: x\r\nA: %d" % number)
        reader.read(b"GET / HTTP/1.1\r\nHost: x\r\nA: 0")
    assert reader.read(b"GET / HTTP/1.1\r\nHost: x\r\nA: 0").fields is first, "in use all the time"
    assert len(reader._recent) + len(reader._older) <= 1024
    big = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 5000
    assert reader.read(big).fields is not reader.read(big).fields


class Heard:
    """What llhttp hears."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.target = b""
        self.body = b""
        self.messages = 0
        self.persistent = False
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode().lower(), value.rstrip(b" \t").decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_headers_complete(self) -> None:
        self.persistent = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self.messages += 1


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"Host: x", b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked",
                b"Connection: close", b"A: b", b"A:", b" folded", b"A : b", b"Expect: 100-continue", b"A: \x80",
                b"Connection: upgrade\r\nUpgrade: websocket", b"A\r\nB: c", b"", b"A: b\n", b"\x00: a",
            ]
        ),
        st.binary(max_size=12),
    ),
    max_size=5,
)  # fmt: skip


@given(st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"PUT /a HTTP/1.0"]), LINES)
def test_llhttp_reads_what_is_accepted_in_the_same_way(line: bytes, lines: list[bytes]) -> None:
    head = b"\r\n".join([line, *lines])
    if b"\r\n\r\n" in head:
        return  # two messages
    try:
        found = HeadReader(1000).read(head)
    except Malformed:
        return
    heard = Heard()
    parser = heard.parser
    parser.feed_data(head + b"\r\n")
    try:
        parser.feed_data(b"\r\n")
    except httptools.HttpParserUpgrade:
        return
    assert found.target.encode() == heard.target
    assert [name for name, _ in found.fields.header_list] == [name for name, _ in heard.headers]
    assert heard.messages == (0 if found.fields.length or found.fields.chunked else 1)
    assert heard.persistent == found.persistent


@given(st.binary(max_size=200))
def test_garbage_is_read_or_refused(data: bytes) -> None:
    for attempt in (data, b"GET / HTTP/1.1\r\nHost: x\r\n" + data, b"GET /" + data + b" HTTP/1.1\r\nHost: x"):
        try:
            found = HeadReader(1000).read(attempt)
        except Malformed:
            continue
        assert "\0" not in found.path


def test_split_target_keeps_an_empty_query() -> None:
    assert split_target("/a?") == ("/a", "")
