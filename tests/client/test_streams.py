"""Logs, commands and forwarded ports, within the process and over HTTPS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from pilothouse.apiserver.http import InProcessTransport
from pilothouse.client import Client, StreamFailed, TransportError
from pilothouse.kinds.status import ApiStatus, BadRequest, NotFound
from support.streamkit import ApiHandler, FakeNodes, make_pod, serving
from support.wireserver import Conversation, answer_of, wire_server


@pytest.fixture
def nodes() -> FakeNodes:
    return FakeNodes()


@pytest.fixture(params=["in process", "https"])
async def client(request: pytest.FixtureRequest, nodes: FakeNodes, tmp_path: Path) -> AsyncIterator[Client]:
    handler = ApiHandler(nodes, make_pod())
    if request.param == "in process":
        async with Client.for_transport(InProcessTransport(handler)) as made:
            yield made
        return
    async with serving(handler, tmp_path) as (_, kubeconfig), Client.from_kubeconfig(kubeconfig) as made:
        yield made


async def test_a_command_that_reads_and_writes(client: Client, nodes: FakeNodes) -> None:
    done = await client.pods.run("web", ["cat"], container="app", stdin=b"hello")
    assert (done.exit_code, done.stdout, done.stderr) == (0, b"hello", b"")
    assert nodes.calls == [("web", "app", ("cat",), False)]


async def test_much_through_a_command(client: Client) -> None:
    data = bytes(range(256)) * 8192
    done = await client.pods.run("web", ["cat"], stdin=data)
    assert done.stdout == data


async def test_both_outputs_and_the_exit_status(client: Client) -> None:
    done = await client.pods.run("web", ["both"])
    assert (done.stdout, done.stderr) == (b"to out\n", b"to err\n")
    assert (await client.pods.run("web", ["exit", "7"])).exit_code == 7


async def test_more_output_than_wanted(client: Client) -> None:
    assert len((await client.pods.run("web", ["big", "2048"])).stdout) == 2 << 20
    with pytest.raises(StreamFailed, match="over 1048576 bytes of output"):
        await client.pods.run("web", ["big", "4096"], max_bytes=1 << 20)


async def test_a_session(client: Client) -> None:
    async with await client.pods.exec("web", ["cat"], stdin=True) as session:
        with pytest.raises(RuntimeError, match="has not ended"):
            _ = session.exit_code
        await session.write(b"one")
        outputs = aiter(session)
        assert await anext(outputs) == ("stdout", b"one")
        await session.close_stdin()
        assert [each async for each in outputs] == []
        assert session.exit_code == 0


async def test_the_size_of_a_terminal(client: Client) -> None:
    async with await client.pods.exec("web", ["size"], stdin=True, tty=True) as session:
        await session.resize(80, 24)
        assert (await session.collect()).stdout == b"80x24\n"


async def test_leaving_a_session_ends_its_connection(client: Client, nodes: FakeNodes) -> None:
    async with await client.pods.attach("web", stdin=True):
        await asyncio.wait_for(nodes.started.wait(), 5)
    async with await client.pods.exec("web", ["hang"]):
        await asyncio.sleep(0.01)
    await asyncio.wait_for(nodes.cancelled.wait(), 5)


async def test_cancelling_a_command_ends_its_connection_at_once(client: Client, nodes: FakeNodes) -> None:
    running = asyncio.ensure_future(client.pods.run("web", ["hang"]))
    await asyncio.wait_for(nodes.started.wait(), 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(nodes.cancelled.wait(), 5)


async def test_commands_that_cannot_be(client: Client) -> None:
    with pytest.raises(StreamFailed, match="container is not running"):
        await client.pods.run("web", ["fail"])
    with pytest.raises(NotFound):
        await client.pods.run("nope", ["cat"])
    with pytest.raises(BadRequest, match="container"):
        await client.pods.run("web", ["cat"], container="nope")
    with pytest.raises(TypeError, match="pass program and arguments apart"):
        await client.pods.run("web", "ls -l")


async def test_logs(client: Client, nodes: FakeNodes) -> None:
    assert await client.pods.read_logs("web", tail_lines=0) == "first line\n"
    assert nodes.log_options["tailLines"] == 0
    options = {"since_seconds": 5, "limit_bytes": 9, "timestamps": True, "previous": True}
    assert [line async for line in client.pods.logs("web", container="app", **options)]  # type: ignore[arg-type]
    assert {"sinceSeconds", "limitBytes", "timestamps", "previous"} <= set(nodes.log_options)


async def test_following_a_log(client: Client, nodes: FakeNodes) -> None:
    async with aclosing(client.pods.logs("web", follow=True)) as lines:
        assert await anext(lines) == b"first line"
        nodes.more_log.set()
        assert await anext(lines) == b"second line"
        assert [line async for line in lines] == []


async def test_following_a_log_can_be_ended(client: Client) -> None:
    lines = client.pods.logs("web", follow=True)
    assert await anext(lines) == b"first line"
    waiting = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_logs_that_are_not_there(client: Client) -> None:
    with pytest.raises(NotFound):
        await client.pods.read_logs("nope")
    with pytest.raises(ApiStatus, match="container"):
        await client.pods.read_logs("web", container="nope")


async def test_a_connection_to_a_port(client: Client) -> None:
    async with await client.pods.connect("web", 9) as connection:
        await connection.write(b"hello")
        assert await connection.read() == b"hello"
        data, got = bytes(range(256)) * 2048, b""
        sending = asyncio.ensure_future(connection.write(data))
        while len(got) < len(data):
            got += await connection.read()
        await sending
        assert got == data


async def test_a_port_that_nothing_listens_at(client: Client) -> None:
    async with await client.pods.connect("web", 1) as connection:
        with pytest.raises(StreamFailed, match=r"portforward port 1: .*nothing listens"):
            await connection.read()


async def test_a_forwarded_port(client: Client) -> None:
    async with client.pods.port_forward("web", 80) as local:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", local.port)
            writer.write(b"hello")
            assert await reader.readexactly(8) == b"80:hello"
            writer.close()
            await writer.wait_closed()
        reader, writer = await asyncio.open_connection("127.0.0.1", local.port)
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(RuntimeError, match="outside of the `async with` block"):
        _ = local.port


async def test_a_server_that_does_not_upgrade() -> None:
    async def no_upgrade(talk: Conversation) -> None:
        while await talk.request():
            await talk.send(answer_of(200))

    async with wire_server(no_upgrade) as server:
        from pilothouse.client import ClientConfig

        async with Client.from_config(ClientConfig(server=server.url)) as client:
            with pytest.raises(StreamFailed, match="answered 200 instead of switching to a WebSocket"):
                await client.pods.run("web", ["cat"])


@pytest.mark.parametrize(
    ("head", "why"),
    [
        ("Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: v5.channel.k8s.io", "is not to ours"),
        ("Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: v9", "the server speaks 'v9'"),
    ],
)
async def test_a_handshake_that_is_wrong(head: str, why: str) -> None:
    import base64
    import hashlib

    async def wrong(talk: Conversation) -> None:
        asked = await talk.request()
        assert asked is not None
        key = asked.header("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        filled = head.format(accept)
        await talk.send(f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{filled}\r\n\r\n".encode())
        await talk.silence()

    async with wire_server(wrong) as server:
        from pilothouse.client import ClientConfig

        async with Client.from_config(ClientConfig(server=server.url)) as client:
            with pytest.raises(StreamFailed, match=why):
                await client.pods.run("web", ["cat"])
            await asyncio.wait_for(server.gone.wait(), 5)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b""])
async def test_a_socket_that_breaks(data: bytes) -> None:
    import base64
    import hashlib

    async def breaks(talk: Conversation) -> None:
        asked = await talk.request()
        assert asked is not None
        key = asked.header("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        head = f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io"
        await talk.send(f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{head}\r\n\r\n".encode())
        await talk.send(data)
        if data:
            await talk.silence()

    async with wire_server(breaks) as server:
        from pilothouse.client import ClientConfig

        async with Client.from_config(ClientConfig(server=server.url)) as client:
            with pytest.raises((StreamFailed, TransportError), match=r"no WebSocket|nothing said how|closed"):
                await client.pods.run("web", ["cat"])
