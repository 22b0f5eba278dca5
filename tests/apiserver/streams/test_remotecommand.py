"""Exec and attach: every protocol of them, what is refused, and clients that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.apiserver.http.pipes import MemoryDuplex
from pilothouse.apiserver.model import Answer, Request, Response
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.streams.idle import IDLE_SECONDS
from pilothouse.apiserver.streams.remotecommand import STREAM_SECONDS, connect_exec
from pilothouse.apiserver.streams.session import LINGER_SECONDS
from pilothouse.apiserver.streams.spdypeer import SpdyPeer, SpdyStream
from pilothouse.foundation.clock import FakeClock
from support.streamkit import (
    LINE,
    FakeNodes,
    Socket,
    make_pod,
    make_request,
    spdy_request,
    upgraded,
    websocket_request,
)

SUCCESS = {"metadata": {}, "status": "Success"}
EXIT_3 = {
    "metadata": {},
    "status": "Failure",
    "message": "command terminated with non-zero exit code: command terminated with exit code 3",
    "reason": "NonZeroExitCode",
    "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
}
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"


@asynccontextmanager
async def socket(query: str, *protocols: str, nodes: FakeNodes | None = None) -> AsyncIterator[Socket]:
    answer = await connect_exec(websocket_request(query, *protocols), make_pod(), nodes or FakeNodes())
    async with upgraded(answer) as (duplex, task):
        yield Socket(duplex)
        await asyncio.wait_for(asyncio.wait({task}), 5)


async def test_version_5_ends_input_by_a_message() -> None:
    async with socket("command=cat&stdin=1&stdout=1", V5) as client:
        client.send(b"\x00hello ")
        client.send(b"\x00world")
        client.send(b"")
        client.send(b"\x09ignored")
        client.send(b"\xff\x00")
        client.send(b"\x00late")
        await client.read()
    assert client.messages[0] == b"\x01"
    assert client.channel(1) == b"hello world"
    assert json.loads(client.channel(3)) == SUCCESS
    assert client.close_code == 1000


async def test_the_exit_code_is_told_in_a_status() -> None:
    async with socket("command=exit&command=3&stdout=true&stderr=true", V4, V5) as client:
        await client.read()
    assert client.messages[0] == b"\x01"
    assert json.loads(client.channel(3)) == EXIT_3


async def test_errors_of_the_node_are_told_in_a_status() -> None:
    async with socket("command=fail&stderr=1", V5) as client:
        await client.read()
    assert client.messages[0] == b"\x02"
    told = json.loads(client.channel(3))
    assert (told["code"], told["reason"], told["message"]) == (400, "BadRequest", "container is not running")
    assert "kind" not in told


async def test_errors_that_nobody_foresaw_are_told() -> None:
    async with socket("command=exit&command=x&stdout=1", V5) as client:
        await client.read()
    told = json.loads(client.channel(3))
    assert told["code"] == 500
    assert told["message"].startswith("Internal error occurred: error executing command in container: invalid literal")


async def test_base64_is_text() -> None:
    async with socket("command=both&stdout=1&stderr=1", "v4.base64.channel.k8s.io") as client:
        await client.read()
    assert client.messages[0] == b"1"
    assert base64.b64decode(client.messages[1][1:]) == b"to out\n"
    assert client.messages[2][:1] == b"2"
    assert json.loads(base64.b64decode(client.messages[3][1:])) == SUCCESS


async def test_base64_input_is_decoded_and_nonsense_ignored() -> None:
    nodes = FakeNodes()
    async with socket("command=size&stdout=1&tty=1&stdin=1", "base64.channel.k8s.io", nodes=nodes) as client:
        client.send("4!!!")
        client.send("4" + base64.b64encode(b'{"Width":5,').decode())
        client.send("4" + base64.b64encode(b'"Height":6}').decode())
        await client.read()
    assert base64.b64decode(client.messages[1][1:]) == b"5x6\n"


async def test_version_1_tells_only_what_failed() -> None:
    async with socket("command=exit&command=0&stdout=1") as client:
        await client.read()
    assert client.messages == [b"\x01"]
    async with socket("command=exit&command=3&stdout=1", "channel.k8s.io") as client:
        await client.read()
    assert client.channel(3) == EXIT_3["message"].encode()  # type: ignore[attr-defined]


async def test_a_resize_in_nonsense_is_skipped_over_to_no_size() -> None:
    nodes = FakeNodes()
    async with socket("command=size&stdout=1&tty=1", V5, nodes=nodes) as client:
        client.send(b'\x04{"Width":1,"Height":2}{"Width":3}')
        await client.read()
    assert client.channel(1) == b"1x2\n"


async def test_a_wrong_end_of_a_channel_ends_the_connection() -> None:
    nodes = FakeNodes()
    async with socket("command=hang&stdin=1&stdout=1", V5, nodes=nodes) as client:
        await asyncio.wait_for(nodes.started.wait(), 5)
        client.send(b"\xff\x00\x01")
        await asyncio.wait_for(nodes.cancelled.wait(), 5)


async def test_input_that_nobody_reads_is_held_back() -> None:
    nodes = FakeNodes()
    answer = await connect_exec(websocket_request("command=hang&stdin=1", V5), make_pod(), nodes)
    async with upgraded(answer) as (duplex, _):
        client = Socket(duplex)

        async def type_on() -> None:
            for _ in range(1000):
                client.send(b"\x00" + LINE * 16)
                await duplex.drain()

        typing = asyncio.create_task(type_on())
        done, _ = await asyncio.wait({typing}, timeout=0.1)
        assert not done
        typing.cancel()


async def test_a_client_that_does_not_close_is_left_after_a_while() -> None:
    clock, nodes = FakeClock(), FakeNodes()
    answer = await connect_exec(
        websocket_request("command=exit&command=0&stdout=1", V5), make_pod(), nodes, clock=clock
    )
    async with upgraded(answer) as (_, task):
        await clock.run(LINGER_SECONDS - 1)
        assert not task.done()
        await clock.run(2)
        assert task.done()


async def test_a_connection_without_a_byte_for_hours_is_cut() -> None:
    clock, nodes = FakeClock(), FakeNodes()
    answer = await connect_exec(websocket_request("command=hang&stdout=1", V5), make_pod(), nodes, clock=clock)
    async with upgraded(answer) as (_, task):
        await clock.run(IDLE_SECONDS - 1)
        assert not task.done()
        await clock.run(2)
        await asyncio.wait_for(nodes.cancelled.wait(), 5)


class Spdy:
    """A SPDY client with the streams of a command."""

    def __init__(self, duplex: MemoryDuplex) -> None:
        self.peer = SpdyPeer(duplex, server=False)
        self.task = asyncio.create_task(self.peer.run())
        self.streams: dict[str, SpdyStream] = {}

    def open(self, *kinds: str) -> None:
        for kind in kinds:
            self.streams[kind] = self.peer.open({"streamtype": kind})

    async def read(self, kind: str) -> bytes:
        found = b""
        while data := await asyncio.wait_for(self.streams[kind].read(), 5):
            found += data
        return found


@asynccontextmanager
async def spdy(
    query: str, protocol: str, nodes: FakeNodes | None = None, clock: FakeClock | None = None
) -> AsyncIterator[Spdy]:
    answer = await connect_exec(spdy_request(query, protocol), make_pod(), nodes or FakeNodes(), clock=clock)
    async with upgraded(answer) as (duplex, task):
        client = Spdy(duplex)
        try:
            yield client
        finally:
            client.task.cancel()
            duplex.close()
            await asyncio.wait_for(asyncio.wait({task}), 5)


async def test_spdy_carries_each_stream() -> None:
    async with spdy("command=cat&stdin=1&stdout=1&stderr=1", V4) as client:
        client.open("error", "stdin", "stdout", "stderr")
        client.streams["stdin"].write(LINE * 300)
        client.streams["stdin"].close()
        assert await client.read("stdout") == LINE * 300
        assert await client.read("stderr") == b""
        assert json.loads(await client.read("error")) == SUCCESS


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        (V4, json.dumps(EXIT_3, separators=(",", ":"))),
        ("v3.channel.k8s.io", EXIT_3["message"]),
        ("v2.channel.k8s.io", EXIT_3["message"]),
        ("channel.k8s.io", EXIT_3["message"]),
    ],
)
async def test_older_versions_tell_the_end_in_their_own_way(protocol: str, told: str) -> None:
    async with spdy("command=exit&command=3&stdout=1", protocol) as client:
        client.open("error", "stdout")
        assert (await client.read("error")).decode() == told


async def test_a_terminal_has_no_stderr_but_a_size() -> None:
    async with spdy("command=size&stdout=1&stderr=1&tty=1", V4) as client:
        client.open("error", "stdout", "resize")
        client.streams["resize"].write(b'{"Width":80,"Height":24}\n')
        assert await client.read("stdout") == b"80x24\n"


async def test_streams_that_nobody_asked_for_are_refused() -> None:
    async with spdy("command=both&stdout=1", V4) as client:
        client.open("what", "stderr")
        client.open("error")
        again = client.peer.open({"streamtype": "error"})
        client.open("stdout")
        assert await client.read("what") == b""
        assert await client.read("stderr") == b""
        assert await asyncio.wait_for(again.read(), 5) == b""
        assert await client.read("stdout") == b"to out\n"


async def test_a_client_that_opens_no_streams_is_left() -> None:
    clock, nodes = FakeClock(), FakeNodes()
    answer = await connect_exec(spdy_request("command=both&stdout=1", V4), make_pod(), nodes, clock=clock)
    async with upgraded(answer) as (_, task):
        await clock.run(STREAM_SECONDS + 1)
        assert task.done()
    assert nodes.calls == []


async def test_a_client_that_breaks_the_protocol_is_left() -> None:
    nodes = FakeNodes()
    answer = await connect_exec(spdy_request("command=hang&stdout=1", V4), make_pod(), nodes)
    async with upgraded(answer) as (duplex, task):
        client = Spdy(duplex)
        client.open("error", "stdout")
        await asyncio.wait_for(nodes.started.wait(), 5)
        duplex.write(b"\x80\x03\x00\x0c\x00\x00\x00\x00")
        await asyncio.wait_for(nodes.cancelled.wait(), 5)
        await asyncio.wait_for(asyncio.wait({task}), 5)
        client.task.cancel()


async def test_output_waits_for_a_client_that_does_not_read() -> None:
    nodes = FakeNodes()
    answer = await connect_exec(spdy_request("command=big&command=65536&stdout=1", V4), make_pod(), nodes)
    async with upgraded(answer) as (duplex, task):
        client = Spdy(duplex)
        client.open("error", "stdout")
        await asyncio.wait({task}, timeout=0.1)
        assert not task.done()
        await asyncio.sleep(0)
        size = client.streams["stdout"].inbox._size
        assert 0 < size < 4 << 20
        client.task.cancel()


def refused(answer: Answer) -> tuple[int, str]:
    assert isinstance(answer, Response)
    assert isinstance(answer.body, bytes)
    if answer.content_type == "application/json":
        told: Mapping[str, Any] = json.loads(answer.body)
        assert told["code"] == answer.status
        return answer.status, told["message"]
    return answer.status, answer.body.decode()


@pytest.mark.parametrize(
    ("request_", "pod", "expected"),
    [
        (make_request("/", "command=x&stdout=1"), make_pod(), (400, "Upgrade request required")),
        (
            websocket_request("command=x&stdout=1", V5),
            make_pod(node=""),
            (400, "pod web does not have a host assigned"),
        ),
        (
            websocket_request("command=x&stdout=1", V5),
            make_pod(containers=("a", "b")),
            (400, "a container name must be specified for pod web, choose one of: [a b]"),
        ),
        (
            websocket_request("command=x&stdout=1", V5),
            make_pod(containers=()),
            (400, "a container name must be specified for pod web"),
        ),
        (
            websocket_request("container=c&command=x&stdout=1", V5),
            make_pod(),
            (400, "container c is not valid for pod web"),
        ),
        (
            websocket_request("command=x", V5),
            make_pod(),
            (400, "you must specify at least 1 of stdin, stdout, stderr\n"),
        ),
        (
            websocket_request("command=x&stderr=1&tty=1&stdout=0&stdin=false", V5),
            make_pod(),
            (400, "you must specify at least 1 of stdin, stdout, stderr\n"),
        ),
        (
            websocket_request("stdout=1", V5),
            make_pod(),
            (400, "you must specify at least one command for the container\n"),
        ),
    ],
)
async def test_refusals(request_: Request, pod: Object, expected: tuple[int, str]) -> None:
    assert refused(await connect_exec(request_, pod, FakeNodes())) == expected


async def test_without_anything_that_runs_pods_the_node_cannot_be_dialed() -> None:
    code, message = refused(await connect_exec(websocket_request("command=x&stdout=1", V5), make_pod(), None))
    assert code == 500
    assert message.startswith("error dialing backend: ")


async def test_attach_needs_no_command_and_init_containers_count() -> None:
    pod = make_pod()
    pod["spec"]["initContainers"] = [{"name": "prepare"}]
    nodes = FakeNodes()
    answer = await connect_exec(websocket_request("container=prepare&stdout=1", V5), pod, nodes, attach=True)
    async with upgraded(answer) as (_, _):
        await asyncio.wait_for(nodes.started.wait(), 5)
    assert nodes.calls == [("web", "prepare", (), True)]
