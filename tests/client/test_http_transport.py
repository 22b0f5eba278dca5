"""The HTTP transport against servers that answer well, wrongly, slowly, or not at all."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
from typing import Any

import pytest

from pilothouse.client import ClientConfig, ConfigError, ConnectFailed, HttpTransport, TransportError, TransportTimeout
from pilothouse.client.httpstream import HIGH
from support.wireserver import Conversation, answer_of, wire_server


async def always(talk: Conversation) -> None:
    while await talk.request():
        await talk.send(answer_of(200, b'{"a":1}'))


def to(url: str, **options: Any) -> HttpTransport:
    return HttpTransport(ClientConfig(server=url, proxy_url=""), **options)


async def test_connections_are_used_again() -> None:
    async with wire_server(always) as server:
        transport = to(server.url)
        for _ in range(5):
            answer = await transport.request("GET", "/x?y=1", [("Accept", "a/b")])
            assert (answer.status, answer.body, answer.header("content-type")) == (200, b'{"a":1}', "application/json")
        await transport.request("POST", "/x", body=b"hello")
        await transport.aclose()
    assert server.connections == 1
    first, last = server.requests[0], server.requests[-1]
    assert (first.method, first.target, first.header("accept")) == ("GET", "/x?y=1", "a/b")
    assert first.header("user-agent").startswith("pilothouse/")
    assert first.header("host") == f"127.0.0.1:{server.port}"
    assert first.header("accept-encoding") == ""  # not on this machine
    assert last.body == b"hello"


async def test_as_many_connections_as_calls_at_once_and_no_more_than_allowed() -> None:
    busy = most = 0

    async def slow(talk: Conversation) -> None:
        nonlocal busy, most
        while await talk.request():
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.005)
            busy -= 1
            await talk.send(answer_of(200))

    async with wire_server(slow) as server:
        transport = to(server.url, calls=4)
        await asyncio.gather(*(transport.request("GET", f"/{number}") for number in range(30)))
        assert server.connections == most == 4
        assert transport.open_connections == 4
        await transport.aclose()
        assert transport.open_connections == 0


async def test_watches_do_not_take_the_places_of_calls() -> None:
    async def both(talk: Conversation) -> None:
        while asked := await talk.request():
            if "watch" in asked.target:
                await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                await talk.silence()
            else:
                await talk.send(answer_of(200))

    async with wire_server(both) as server:
        transport = to(server.url, calls=1)
        watches = [await transport.request("GET", "/watch", stream=True) for _ in range(20)]
        assert (await transport.request("GET", "/call", timeout=5)).status == 200
        for watch in watches:
            await watch.aclose()
        await transport.aclose()


async def test_streams_are_bounded_too() -> None:
    async def stream(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await talk.silence()

    async with wire_server(stream) as server:
        transport = to(server.url, streams=1)
        first = await transport.request("GET", "/", stream=True)
        second = asyncio.ensure_future(transport.request("GET", "/", stream=True))
        await asyncio.sleep(0.02)
        assert not second.done()
        await first.aclose()
        await (await second).aclose()
        await transport.aclose()


async def test_a_stream_comes_in_pieces_and_its_connection_is_used_again() -> None:
    async def stream(talk: Conversation) -> None:
        while await talk.request():
            await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (b"one\n", b"two\n"):
                await talk.chunk(piece)
                await asyncio.sleep(0.01)
            await talk.chunk(b"")

    async with wire_server(stream) as server:
        transport = to(server.url)
        for _ in range(2):
            answer = await transport.request("GET", "/", stream=True)
            assert answer.stream is not None
            assert b"".join([piece async for piece in answer.stream]) == b"one\ntwo\n"
        assert server.connections == 1
        await transport.aclose()


async def test_a_slow_reader_slows_the_server_down() -> None:
    sent = 0

    async def flood(talk: Conversation) -> None:
        nonlocal sent
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await talk.chunk(bytes(65536))
            sent += 65536

    async with wire_server(flood) as server:
        transport = to(server.url)
        answer = await transport.request("GET", "/", stream=True)
        for _ in range(20):
            before = sent
            await asyncio.sleep(0.02)
            if sent == before:
                break
        assert sent < 16 * HIGH, "the server could go on without end"
        stopped = sent
        assert answer.stream is not None
        async for _ in answer.stream:
            if sent > stopped + HIGH:
                break
        await answer.aclose()
        await transport.aclose()


async def test_a_silent_server_is_given_up() -> None:
    async with wire_server(Conversation.silence) as server:
        transport = to(server.url)
        with pytest.raises(TransportTimeout, match=r"no answer within 0\.05 s") as caught:
            await transport.request("GET", "/", timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
        await asyncio.wait_for(server.gone.wait(), 5)
        await transport.aclose()


async def test_a_watch_that_falls_silent_is_given_up() -> None:
    async def stream(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            await talk.chunk(b"{}\n")
            await asyncio.sleep(0.04)
        await talk.silence()

    async with wire_server(stream) as server:
        transport = to(server.url)
        answer = await transport.request("GET", "/", stream=True, idle=0.1)
        assert answer.stream is not None
        with pytest.raises(TransportTimeout, match="nothing came on the stream"):
            assert [piece async for piece in answer.stream]
        await asyncio.wait_for(server.gone.wait(), 5)
        await transport.aclose()


async def test_silence_does_not_count_while_we_do_not_read() -> None:
    async def stream(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(64):
            await talk.chunk(bytes(65536))
        await talk.chunk(b"")

    async with wire_server(stream) as server:
        transport = to(server.url)
        answer = await transport.request("GET", "/", stream=True, idle=1.0)
        await asyncio.sleep(1.5)
        assert answer.stream is not None
        assert sum([len(piece) async for piece in answer.stream]) == 64 * 65536
        await transport.aclose()


async def test_cancelling_frees_the_connection_at_once() -> None:
    async with wire_server(Conversation.silence) as server:
        transport = to(server.url)
        call = asyncio.ensure_future(transport.request("GET", "/"))
        await asyncio.sleep(0.02)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.gone.wait(), 5)
        assert transport.open_connections == 0
        await transport.aclose()


async def test_a_stream_that_is_forgotten_ends_its_connection() -> None:
    async def stream(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await talk.silence()

    async with wire_server(stream) as server:
        transport = to(server.url, streams=1)
        answer: Any = await transport.request("GET", "/", stream=True)
        del answer
        gc.collect()
        await asyncio.wait_for(server.gone.wait(), 5)
        await (await transport.request("GET", "/", stream=True, timeout=5)).aclose()
        await transport.aclose()


async def test_closing_ends_what_goes_on() -> None:
    async with wire_server(Conversation.silence) as server:
        transport = to(server.url)
        call = asyncio.ensure_future(transport.request("GET", "/"))
        await asyncio.sleep(0.02)
        await transport.aclose()
        with pytest.raises(TransportError):
            await call
        with pytest.raises(TransportError, match="was closed"):
            await transport.request("GET", "/")
        await transport.aclose()


async def test_an_idle_connection_that_the_server_closed_costs_nothing() -> None:
    async def once(talk: Conversation) -> None:
        await talk.request()
        await talk.send(answer_of(200))

    async with wire_server(once) as server:
        transport = to(server.url)
        for _ in range(3):
            assert (await transport.request("POST", "/", body=b"x")).status == 200
            await asyncio.sleep(0.01)
        assert server.connections == 3
        await transport.aclose()


async def test_a_get_on_a_connection_that_just_ended_is_sent_again_and_a_post_is_not() -> None:
    async def second_breaks(talk: Conversation) -> None:
        await talk.request()
        await talk.send(answer_of(200))
        await talk.request()  # and closes without an answer

    async with wire_server(second_breaks) as server:
        transport = to(server.url)
        for _ in range(2):
            assert (await transport.request("GET", "/")).status == 200
        with pytest.raises(TransportError, match="closed the connection before the answer"):
            await transport.request("POST", "/", body=b"x")
        await transport.aclose()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "before the answer was complete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000 + b"\r\n\r\n", "over 262144 bytes of headers"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "no HTTP"),
        (b"", "closed the connection"),
    ],
)
async def test_an_answer_that_is_none(data: bytes, why: str) -> None:
    async def wrong(talk: Conversation) -> None:
        await talk.request()
        await talk.send(data)

    async with wire_server(wrong) as server:
        transport = to(server.url)
        with pytest.raises(TransportError, match=why):
            await transport.request("GET", "/")
        assert transport.open_connections == 0
        await transport.aclose()


async def test_two_answers_to_one_request_are_not_taken_for_the_next() -> None:
    async def twice(talk: Conversation) -> None:
        while await talk.request():
            await talk.send(answer_of(200, b"1") + answer_of(200, b"2"))

    async with wire_server(twice) as server:
        transport = to(server.url)
        for _ in range(3):
            try:
                assert (await transport.request("GET", "/")).body == b"1"
            except TransportError:
                continue
        assert server.connections == 3
        await transport.aclose()


async def test_a_body_until_the_end_of_the_connection() -> None:
    async def plain(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        talk.writer.close()
        await talk.writer.wait_closed()

    async with wire_server(plain) as server:
        transport = to(server.url)
        assert (await transport.request("GET", "/")).body == b"all of it"
        await transport.aclose()


async def test_what_is_said_before_an_answer_is_passed_over() -> None:
    async def wordy(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + answer_of(200, b"1"))
        await talk.silence()

    async with wire_server(wordy) as server:
        transport = to(server.url)
        answer = await transport.request("GET", "/")
        assert (answer.status, answer.body, answer.header("x")) == (200, b"1", "")
        await transport.aclose()


async def test_a_break_within_a_stream_is_an_error_and_its_end_is_not() -> None:
    async def breaks(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await talk.chunk(b"one")

    async with wire_server(breaks) as server:
        transport = to(server.url)
        answer = await transport.request("GET", "/", stream=True)
        assert answer.stream is not None
        assert await anext(answer.stream) == b"one"
        with pytest.raises(TransportError):
            await anext(answer.stream)
        await transport.aclose()


async def test_compression_is_asked_for_and_undone() -> None:
    packed = gzip.compress(b"x" * 100_000)

    async def compressed(talk: Conversation) -> None:
        while await talk.request():
            await talk.send(answer_of(200, packed, Content_Encoding="gzip"))

    async with wire_server(compressed) as server:
        transport = HttpTransport(ClientConfig(server=server.url, compression=True))
        assert (await transport.request("GET", "/")).body == b"x" * 100_000
        answer = await transport.request("GET", "/", stream=True)
        assert answer.stream is not None
        assert b"".join([piece async for piece in answer.stream]) == b"x" * 100_000
        assert server.requests[0].header("accept-encoding") == "gzip"
        await transport.aclose()


async def test_a_refusal_comes_whole_though_a_stream_was_asked_for() -> None:
    async def refuse(talk: Conversation) -> None:
        while await talk.request():
            await talk.send(answer_of(410, b"gone"))

    async with wire_server(refuse) as server:
        transport = to(server.url)
        answer = await transport.request("GET", "/", stream=True)
        assert (answer.status, answer.body, answer.stream) == (410, b"gone", None)
        await transport.aclose()


async def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    transport = HttpTransport(ClientConfig(server=f"http://127.0.0.1:{port}", source='context "c" in FILE'))
    with pytest.raises(ConnectFailed, match=rf'http://127.0.0.1:{port} \(context "c" in FILE\): cannot be reached'):
        await transport.request("GET", "/")
    await transport.aclose()


async def test_a_name_that_is_nowhere() -> None:
    transport = to("http://nowhere.invalid:80")
    with pytest.raises(ConnectFailed, match="the name cannot be resolved"):
        await transport.request("GET", "/")
    await transport.aclose()


async def test_a_connection_that_does_not_come_about_in_time() -> None:
    with socket.socket() as full:
        # A backlog that is full: the kernel answers no more.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        others = []
        for _ in range(4):
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(full.getsockname())
            others.append(other)
        transport = to(f"http://127.0.0.1:{full.getsockname()[1]}", connect_seconds=0.1)
        with pytest.raises(TransportTimeout, match=r"no connection within 0\.1 s"):
            await transport.request("GET", "/")
        await transport.aclose()
        for other in others:
            other.close()


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X\n", "a"), ("X", "a\0")])
async def test_headers_cannot_smuggle_others_in(header: tuple[str, str]) -> None:
    transport = to("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="a line break or a null character"):
        await transport.request("GET", "/", [header])
    await transport.aclose()


@pytest.mark.parametrize("target", ["/a\r\nX: y", "/a b", "/\u20ac"])
async def test_a_target_that_is_not_quoted(target: str) -> None:
    transport = to("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="quote"):
        await transport.request("GET", target)
    await transport.aclose()


@pytest.mark.parametrize("url", ["ftp://h", "https://", "nothing"])
async def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="no URL of a server"):
        to(url)


async def test_the_path_of_the_server_comes_before_all_others() -> None:
    async with wire_server(always) as server:
        transport = to(f"{server.url}/k8s/clusters/c1/")
        await transport.request("GET", "/api")
        assert server.requests[0].target == "/k8s/clusters/c1/api"
        await transport.aclose()


async def test_upgraded_connections_are_bounded_as_streams_are() -> None:
    async def upgrade(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhi")
        await talk.silence()

    async with wire_server(upgrade) as server:
        transport = to(server.url, streams=1, calls=1)
        headers = [("Connection", "Upgrade"), ("Upgrade", "x")]
        first = await transport.request("GET", "/", headers)
        assert first.duplex is not None
        assert await first.duplex.read() == b"hi"
        second = asyncio.ensure_future(transport.request("GET", "/", headers))
        await asyncio.sleep(0.02)
        assert not second.done()
        first.duplex.abort()
        await (await asyncio.wait_for(second, 5)).aclose()
        await transport.aclose()


async def test_connections_that_nobody_needs_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.client.http._IDLE_SECONDS", 0.03)
    async with wire_server(always) as server:
        transport = to(server.url)
        await asyncio.gather(*(transport.request("GET", "/") for _ in range(3)))
        assert transport.open_connections == 3
        await asyncio.sleep(0.15)
        assert transport.open_connections == 0
        assert (await transport.request("GET", "/")).status == 200
        await transport.aclose()
