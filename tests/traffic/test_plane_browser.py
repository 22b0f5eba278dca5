"""What a browser does with a gateway: pages and WebSockets by TLS, over HTTP/1.1 and over one connection of HTTP/2."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
import wsproto
from wsproto.connection import Connection as Frames
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Event, Request, TextMessage

from pilothouse.foundation.tls import issue, make_ca
from pilothouse.traffic.config import Certificate, ListenerTls
from support.browser import Page
from support.planekit import Origin, Plane, configuration, free_port, head_of, plane, until
from support.tunnelkit import Http2, TunnelServer

PAGE = b"<!doctype html><title>It</title><h1>hello</h1>"
HTML = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%b" % (len(PAGE), PAGE)

TALK = """
async (size) => {
    const said = {};
    const ws = new WebSocket(`wss://${location.host}/chat`, ["chat"]);
    ws.binaryType = "arraybuffer";
    const next = (name) => new Promise((resolve, reject) => {
        ws.addEventListener(name, resolve, {once: true});
        ws.addEventListener("error", () => reject(new Error("failed")), {once: true});
    });
    await next("open");
    said.protocol = ws.protocol;
    ws.send("hello");
    said.text = (await next("message")).data;
    const bytes = new Uint8Array(size).map((_, index) => index % 251);
    ws.send(bytes);
    let all = [];
    while (all.length < size) all = all.concat(Array.from(new Uint8Array((await next("message")).data)));
    said.same = all.length === size && all.every((each, index) => each === index % 251);
    window.stay = new WebSocket(`wss://${location.host}/chat`, ["chat"]);
    await new Promise((resolve) => { window.stay.onopen = resolve; });
    ws.close(1000, "done");
    const closed = await next("close");
    said.code = closed.code;
    said.clean = closed.wasClean;
    return said;
}
"""
SAID = {"protocol": "chat", "text": "hello", "same": True, "code": 1000, "clean": True}
TRY = """() => new Promise((resolve) => {
    const ws = new WebSocket(`wss://${location.host}/chat`);
    ws.onclose = (event) => resolve(event.code);
})"""


def echoed(event: Event) -> Event | None:
    """Return what is said to an event of a WebSocket."""
    if isinstance(event, TextMessage):
        return TextMessage(str(event.data), message_finished=event.message_finished)
    if isinstance(event, BytesMessage):
        return BytesMessage(bytes(event.data), message_finished=event.message_finished)
    return event.response() if isinstance(event, CloseConnection) else None


def serve(sock: socket.socket, number: int) -> None:
    """Answer with the page, or echo."""
    del number
    while True:
        head, _ = head_of(sock)
        if b"upgrade: websocket" in head:
            break
        sock.sendall(HTML)
    server = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    server.receive_data(head + b"\r\n\r\n")
    while True:
        for event in server.events():
            if isinstance(event, Request):
                chosen = event.subprotocols[0] if event.subprotocols else None
                sock.sendall(server.send(AcceptConnection(subprotocol=chosen)))
            elif (answer := echoed(event)) is not None:
                sock.sendall(server.send(answer))
            if isinstance(event, CloseConnection):
                return
        data = sock.recv(65536)
        if not data:
            return
        server.receive_data(data)


class WebSocketServer(TunnelServer):
    """Takes tunnels of HTTP/2, and speaks WebSocket in them; other requests get the page."""

    def _answer(self, server: Http2, stream: int) -> None:
        if b":protocol" in server.heads[stream]:
            super()._answer(server, stream)
            return
        server.engine.send_response(stream, [(b":status", b"200"), (b"content-type", b"text/html")])
        server.engine.send_data(stream, PAGE, end_stream=True)

    def _came(self, server: Http2, stream: int, body: bytearray) -> None:
        known: dict[tuple[int, int], Frames] = self.__dict__.setdefault("frames", {})
        frames = known.setdefault((id(server), stream), Frames(wsproto.ConnectionType.SERVER))
        frames.receive_data(bytes(body))
        body.clear()
        for event in frames.events():
            if (answer := echoed(event)) is not None:
                server.engine.send_data(stream, frames.send(answer), end_stream=isinstance(event, CloseConnection))

    def _end(self, server: Http2, stream: int) -> None:
        """Do nothing: a WebSocket says before that it ends."""


@pytest.fixture(params=["http/1.1", "h2"])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    origin = Origin(serve) if request.param == "http/1.1" else WebSocketServer().origin
    with origin:
        yield request.param, origin.port


@pytest.fixture(params=["http/1.1", "h2"])
def served(request: pytest.FixtureRequest, backend: tuple[str, int]) -> Iterator[Plane]:
    pair = issue(make_ca("test"), "a.example", hosts=["a.example"], server=True)
    tls = ListenerTls(certificates=("one",), alpn=tuple(dict.fromkeys((request.param, "http/1.1"))))
    config = configuration(
        backend[1],
        port=free_port(),
        listener={"protocol": "HTTPS", "tls": tls},
        certificates={"one": Certificate(chain=pair.certificate, key=pair.key)},
        backend={"protocol": backend[0]},
    )
    with plane(config) as made:
        yield made


async def tunnels_are(count: int, served: Plane) -> None:
    await asyncio.to_thread(until, lambda: served.do(lambda: len(served.worker.tunnels)) == count, f"{count} tunnels")


async def test_websockets(browser: Page, served: Plane) -> None:
    assert await browser.goto(f"https://a.example:{served.port}/") == 200
    assert await browser.text("h1") == "hello"
    by = await browser.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
    assert await browser.evaluate(TALK, 300_000) == SAID
    tls = served.worker.plan.configuration.listeners[0].tls
    assert tls is not None
    assert by == tls.alpn[0]
    await tunnels_are(1, served)  # the second stays open: over HTTP/2 as a stream of the page's own connection
    clients = await asyncio.to_thread(served.do, lambda: [type(each).__name__ for each in served.worker.clients])
    assert clients == ["Client2"] if by == "h2" else "Client2" not in clients
    assert (await browser.screenshot()).startswith(b"\x89PNG")
    assert [each for each in browser.errors if "favicon" not in each] == []
    await browser.evaluate("window.stay.close()")
    await tunnels_are(0, served)


async def test_a_websocket_that_is_refused(browser: Page) -> None:
    pair = issue(make_ca("test"), "a.example", hosts=["a.example"], server=True)
    listener = {"protocol": "HTTPS", "tls": ListenerTls(certificates=("one",))}
    certificates = {"one": Certificate(chain=pair.certificate, key=pair.key)}
    with (
        Origin.answering(HTML) as origin,
        plane(configuration(origin.port, port=free_port(), listener=listener, certificates=certificates)) as served,
    ):
        assert await browser.goto(f"https://a.example:{served.port}/") == 200
        assert await browser.evaluate(TRY) == 1006
        assert any("502" in each for each in browser.errors)
