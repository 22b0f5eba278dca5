"""The reverse proxy against real servers on loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.model import Answer, Peer, Request, RequestInfo, Response, Sink, StreamingResponse
from pilothouse.apiserver.proxying.resolve import Backend, Resolver
from pilothouse.apiserver.proxying.reverse import ReverseProxy, Target, proxied_path, proxy_upgrade_aware
from pilothouse.apiserver.proxying.subresources import connect_proxy
from pilothouse.foundation import tls
from support.proxykit import Authority, FakeView, http_server, raw_server
from support.streamkit import make_request, upgraded


@pytest.fixture
async def proxy() -> AsyncIterator[ReverseProxy]:
    found = ReverseProxy()
    yield found
    await found.close()


class Collecting:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.drained = 0
        self.closed = False
        self.got = asyncio.Event()

    @property
    def buffered(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.data += data
        self.got.set()

    def write_piece(self, piece: Any) -> None:
        self.write(piece.data)

    async def drain(self) -> None:
        self.drained += 1


def body_of(answer: Answer) -> bytes:
    assert isinstance(answer, Response), answer
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)


def status_of(answer: Answer) -> dict[str, Any]:
    return json.loads(body_of(answer))  # type: ignore[no-any-return]


async def echo(request: Request) -> Answer:
    """Tell what came."""
    told = {
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": request.body.decode(),
    }
    headers = [("X-Own", "1"), ("Access-Control-Allow-Origin", "*"), ("Connection", "x-hop"), ("X-Hop", "1")]
    return Response(201, json.dumps(told).encode(), headers)


def ask(target: str = "/t", headers: Sequence[tuple[str, str]] = (), method: str = "GET", body: bytes = b"") -> Request:
    path, _, query = target.partition("?")
    named = {name.lower(): value for name, value in headers}
    listed = [(name.lower(), value) for name, value in headers]
    return Request(method, target, path, query, named, body, Peer("192.0.2.7"), listed)


async def test_a_request_and_its_answer_are_carried(proxy: ReverseProxy) -> None:
    sent = [
        ("Host", "api.example"),
        ("Authorization", "Bearer secret"),
        ("Impersonate-User", "root"),
        ("X-Remote-User", "root"),
        ("X-Forwarded-For", "198.51.100.1"),
        ("Connection", "keep-alive, X-This-Hop"),
        ("X-This-Hop", "1"),
        ("TE", "trailers"),
        ("Content-Type", "text/x"),
        ("X-Kept", "yes"),
    ]
    async with http_server(echo) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/a%2Fb/c", "/api/v1/x/proxy")
        answer = await proxy_upgrade_aware(ask("/t?q=1&q=%20", sent, "POST", b"hello"), target, proxy)
    assert isinstance(answer, Response)
    assert (answer.status, answer.content_type) == (201, "application/json")
    names = {name.lower() for name, _ in answer.headers}
    assert "x-own" in names
    assert not names & {"access-control-allow-origin", "x-hop", "connection", "content-length", "date"}
    told = status_of(answer)
    assert (told["method"], told["target"], told["body"]) == ("POST", "/a%2Fb/c?q=1&q=%20", "hello")
    headers = told["headers"]
    assert headers["x-forwarded-for"] == "198.51.100.1, 192.0.2.7"
    assert headers["x-forwarded-uri"] == "/api/v1/x/proxy/a%2Fb/c"
    assert headers["x-forwarded-host"] == headers["host"] == "api.example"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["content-type"] == "text/x"
    assert headers["x-kept"] == "yes"
    assert not set(headers) & {"authorization", "impersonate-user", "x-remote-user", "x-this-hop", "te", "user-agent"}


async def test_an_empty_path_is_redirected_to_one_with_a_slash(proxy: ReverseProxy) -> None:
    target = Target(Backend("http", "127.0.0.1", "1"), "", "/api/v1/nodes/n/proxy")
    answer = await proxy_upgrade_aware(ask("/api/v1/nodes/n/proxy?a=1"), target, proxy)
    assert isinstance(answer, Response)
    assert (answer.status, list(answer.headers)) == (301, [("Location", "/api/v1/nodes/n/proxy/?a=1")])


async def test_a_server_that_is_not_there_is_told(proxy: ReverseProxy) -> None:
    async with raw_server(lambda reader, writer: reader.read()) as port:
        pass
    answer = await proxy_upgrade_aware(ask(), Target(Backend("http", "127.0.0.1", str(port)), "/"), proxy)
    told = status_of(answer)
    assert (told["code"], told["reason"]) == (503, "ServiceUnavailable")
    assert told["message"] == (f"error trying to reach service: dial tcp 127.0.0.1:{port}: connect: connection refused")


async def test_a_server_that_does_not_answer_is_given_up(proxy: ReverseProxy) -> None:
    async with raw_server(lambda reader, writer: reader.read()) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/", seconds=0.05)
        told = status_of(await proxy_upgrade_aware(ask(), target, proxy))
    assert told["message"].endswith("i/o timeout")


@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
async def test_a_broken_answer_is_told(proxy: ReverseProxy, kind: str) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: %b\r\n\r\nshort" % kind.encode())
        await writer.drain()

    async with raw_server(broken) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/", "/p")
        assert status_of(await proxy_upgrade_aware(ask(), target, proxy))["code"] == 503


async def test_streams_are_passed_on_as_they_come(proxy: ReverseProxy) -> None:
    go_on = asyncio.Event()

    async def watch(sink: Sink) -> None:
        sink.write(b"one\n")
        await sink.drain()
        await go_on.wait()
        sink.write(b"two\n" * 100_000)

    async with http_server(lambda request: StreamingResponse(watch, content_type="text/plain")) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/")
        answer = await proxy_upgrade_aware(ask(), target, proxy)
        assert isinstance(answer, StreamingResponse)
        assert (answer.status, answer.content_type) == (200, "text/plain")
        sink = Collecting()
        running = asyncio.ensure_future(answer.run(sink))
        await asyncio.wait_for(sink.got.wait(), 5)
        assert sink.data == b"one\n"
        go_on.set()
        await asyncio.wait_for(running, 5)
    assert sink.data == b"one\n" + b"two\n" * 100_000
    assert sink.drained > 1


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("/x/y?a=1#f", "/p/proxy/x/y?a=1#f"),
        ("/p/proxy/x", "/p/proxy/x"),
        ("http://BACKEND/x", "/p/proxy/x"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("relative", "relative"),
        ("//evil.example/x", "//evil.example/x"),
    ],
)
async def test_redirects_lead_through_the_proxy(proxy: ReverseProxy, location: str, found: str) -> None:
    def redirect(request: Request) -> Answer:
        where = location.replace("BACKEND", f"127.0.0.1:{port}")
        return Response(302, b"", [("Location", where)])

    async with http_server(redirect) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/z", "/p/proxy")
        answer = await proxy_upgrade_aware(ask(), target, proxy)
        refused = await proxy_upgrade_aware(ask(), Target(target.backend, "/z", redirects=False), proxy)
    assert isinstance(answer, Response)
    assert dict(answer.headers)["Location"] == found
    assert isinstance(refused, Response)
    assert (refused.status, body_of(refused).startswith(b"the backend attempted to redirect")) == (502, True)


async def test_an_upgrade_is_carried_byte_by_byte(proxy: ReverseProxy) -> None:
    heads = []

    async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\nhi"
        )
        while data := await reader.read(1000):
            writer.write(data.upper())
            await writer.drain()

    headers = [
        ("Host", "h"),
        ("Connection", "Upgrade"),
        ("Upgrade", "SPDY/3.1"),
        ("Authorization", "Bearer secret"),
        ("Sec-WebSocket-Protocol", "a, base64url.bearer.authorization.k8s.io.c2VjcmV0, b"),
    ]
    async with raw_server(switch) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/up")
        answer = await proxy_upgrade_aware(ask("/x?q=1", headers), target, proxy)
        async with upgraded(answer) as (client, task):
            assert await client.read() == b"hi"
            client.write(b"abc" * 100_000)
            data = b""
            while len(data) < 300_000:
                data += await client.read()
            assert data == b"ABC" * 100_000
            client.close()
            await asyncio.wait_for(task, 5)
    assert list(answer.headers) == [("Upgrade", "SPDY/3.1"), ("Connection", "Upgrade"), ("X-A", "1")]
    head = heads[0].decode().lower()
    assert head.startswith("get /up?q=1 http/1.1\r\n")
    assert "sec-websocket-protocol: a, b\r\n" in head
    assert "connection: upgrade\r\nupgrade: spdy/3.1\r\n" in head
    assert "secret" not in head
    assert "c2vjcmv0" not in head


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(answer)
    await writer.drain()


@pytest.mark.parametrize(
    ("sent", "code", "body"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nContent-Type: text/x\r\n\r\nno", 403, b"no"),
        (b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 400, b"abc"),
        (b"HTTP/1.1 500 Bad\r\n\r\nto the end", 500, b"to the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 500, b"invalid upgrade response: status code 200"),
        (b"what is this?\r\n\r\n", 500, b"invalid upgrade response"),
        (b"", 500, b"error dialing backend"),
        (b"HTTP/1.1 101 X\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", 500, b"error dialing backend"),
    ],
)
async def test_a_refused_upgrade_is_told(proxy: ReverseProxy, sent: bytes, code: int, body: bytes) -> None:
    async with raw_server(lambda reader, writer: refuse(reader, writer, sent)) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/")
        answer = await proxy_upgrade_aware(ask("/", [("Connection", "Upgrade"), ("Upgrade", "x")]), target, proxy)
    assert isinstance(answer, Response)
    assert answer.status == code
    assert body in body_of(answer)


async def test_an_upgrade_to_nowhere_is_told(proxy: ReverseProxy) -> None:
    async with raw_server(lambda reader, writer: reader.read()) as port:
        pass
    target = Target(Backend("http", "127.0.0.1", str(port)), "/")
    answer = await proxy_upgrade_aware(ask("/", [("Connection", "Upgrade"), ("Upgrade", "x")]), target, proxy)
    told = status_of(answer)
    assert told["code"] == 500
    assert told["message"] == f"error dialing backend: dial tcp 127.0.0.1:{port}: connect: connection refused"


async def test_what_must_be_an_upgrade_is_refused_without_one(proxy: ReverseProxy) -> None:
    target = Target(Backend("http", "127.0.0.1", "1"), "/")
    told = status_of(await proxy_upgrade_aware(ask(), target, proxy, upgrade_required=True))
    assert (told["code"], told["message"]) == (400, "Upgrade request required")


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("/api/v1/namespaces/d/pods/proxy/proxy/a%2Fb?x", ("/api/v1/namespaces/d/pods/proxy/proxy", "/a%2Fb")),
        ("/api/v1/namespaces/d/services/s/proxy/", ("/api/v1/namespaces/d/services/s/proxy", "/")),
        ("/api/v1/namespaces/d/services/s/proxy", ("/api/v1/namespaces/d/services/s/proxy", "")),
        ("/api/v1/nodes/n/proxy/metrics", ("/api/v1/nodes/n/proxy", "/metrics")),
        ("/api/v1/nodes/n", ("/api/v1/nodes/n", "")),
    ],
)
def test_the_path_is_split_at_the_subresource(target: str, found: tuple[str, str]) -> None:
    assert proxied_path(make_request(target.partition("?")[0], target.partition("?")[2])) == found


async def test_nodes_do_not_lead_into_this_machine(proxy: ReverseProxy) -> None:
    status = {"addresses": [{"type": "Hostname", "address": "localhost"}]}
    view = FakeView(nodes=[{"metadata": {"name": "n"}, "status": status}])
    async with http_server(echo) as port:
        request = ask(f"/api/v1/nodes/n:{port}/proxy/x")
        request.info = RequestInfo(True, "get", request.path, "", "v1", "", "nodes", "proxy", f"n:{port}", "/x")
        refused = status_of(await connect_proxy(request, Resolver(view), proxy))
        assert (refused["code"], refused["message"]) == (400, "address not allowed")
        assert status_of(await connect_proxy(request, Resolver(view, local=True), proxy))["target"] == "/x"
    dry = ask(request.path)
    dry.query_text, dry.info = "dryRun=All", request.info
    assert status_of(await connect_proxy(dry, Resolver(view), proxy))["message"] == "dryRun is not supported"


PAGE = b'<a href="/rewriteme">test \xff</a>'
REWRITTEN = b'<a href="/p/proxy/rewriteme">test \xff</a>'


@pytest.mark.parametrize(
    ("body", "coding", "kind", "expected"),
    [
        (PAGE, "", "text/html", REWRITTEN),
        (gzip.compress(PAGE, mtime=0), "gzip", "text/html; charset=utf-8", REWRITTEN),
        (PAGE, "br", "text/html", PAGE),
        (PAGE, "gzip", "text/html", PAGE),
        (gzip.compress(bytes(5 << 20), mtime=0), "gzip", "text/html", gzip.compress(bytes(5 << 20), mtime=0)),
        (PAGE, "", "text/plain", PAGE),
    ],
)
async def test_links_of_pages_lead_through_the_proxy(
    proxy: ReverseProxy, body: bytes, coding: str, kind: str, expected: bytes
) -> None:
    headers = [("Content-Encoding", coding)] if coding else []
    async with http_server(lambda request: Response(200, body, headers, kind)) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/", "/p/proxy")
        answer = await proxy_upgrade_aware(ask(), target, proxy)
    assert isinstance(answer, Response)
    assert answer.content_type == kind
    assert len(body_of(answer)) == len(expected)
    if expected == REWRITTEN:
        assert body_of(answer) == expected
        assert list(answer.headers) == []


async def test_pages_that_are_too_long_are_passed_on(proxy: ReverseProxy) -> None:
    body = PAGE * (5 << 15)
    async with http_server(lambda request: Response(200, body, content_type="text/html")) as port:
        target = Target(Backend("http", "127.0.0.1", str(port)), "/", "/p/proxy")
        answer = await proxy_upgrade_aware(ask(), target, proxy)
        assert isinstance(answer, StreamingResponse)
        sink = Collecting()
        await asyncio.wait_for(answer.run(sink), 5)
    assert sink.data == body


async def test_pods_behind_tls_are_reached_whatever_their_certificate(proxy: ReverseProxy, tmp_path: Path) -> None:
    files = Authority(tmp_path, "unknown").issue("pod", "elsewhere.example")
    async with http_server(echo, tls.server_context(*files)) as port:
        pod = {
            "metadata": {"name": "a", "namespace": "d"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"podIP": "127.0.0.1"},
        }
        name = f"https:a:{port}"
        request = ask(f"/api/v1/namespaces/d/pods/{name}/proxy/x")
        request.info = RequestInfo(True, "get", request.path, "", "v1", "d", "pods", "proxy", name, "/x")
        answer = await connect_proxy(request, Resolver(FakeView(pods=[pod]), local=True), proxy)
    assert status_of(answer)["target"] == "/x"


async def test_pods_are_proxied(proxy: ReverseProxy) -> None:
    async with http_server(echo) as port:
        pod = {
            "metadata": {"name": "a", "namespace": "d"},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": port}]}]},
            "status": {"podIP": "127.0.0.1"},
        }
        request = ask("/api/v1/namespaces/d/pods/a/proxy/x?y=1")
        request.info = RequestInfo(True, "get", request.path, "", "v1", "d", "pods", "proxy", "a", "/x")
        answer = await connect_proxy(request, Resolver(FakeView(pods=[pod]), local=True), proxy)
        assert status_of(answer)["target"] == "/x?y=1"
        refused = await connect_proxy(request, Resolver(FakeView()), proxy)
        assert status_of(refused)["message"] == 'pods "a" not found'
