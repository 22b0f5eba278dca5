"""Logs of pods: options, refusals, streaming, and nodes and clients that go."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.http.pipes import MemoryDuplex
from pilothouse.apiserver.model import Answer, Response, Sink, StreamingResponse
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.streams.logs import logs
from pilothouse.apiserver.streams.podoptions import log_options
from pilothouse.apiserver.streams.portforward import connect_port_forward
from pilothouse.apiserver.streams.remotecommand import connect_exec
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import BadRequest, Invalid
from support.proxykit import FakeView
from support.streamkit import LINE, FakeNodes, Socket, make_pod, make_request, upgraded, websocket_request


def refused(answer: Answer) -> tuple[int, str]:
    assert isinstance(answer, Response)
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)["message"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        (
            "sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z",
            "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        ("stream=Other", 'stream: Unsupported value: "Other": supported values: "All", "Stderr", "Stdout"'),
        (
            "stream=Stdout&tailLines=1",
            "[]: Forbidden: `tailLines` and specific `stream` are mutually exclusive for now",
        ),
    ],
)
async def test_wrong_options_are_invalid(query: str, message: str) -> None:
    answer = await logs(make_request("/", query), make_pod(), FakeNodes(), split_streams=True)
    code, text = refused(answer)
    assert code == 422
    assert text == f'PodLogOptions "web" is invalid: {message}'


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tailLines=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("tailLines=9223372036854775808", 'strconv.ParseInt: parsing "9223372036854775808": value out of range'),
        ("sinceTime=x", 'parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"'),
        ("container=c", "container c is not valid for pod web"),
    ],
)
async def test_options_that_cannot_be_read_are_bad(query: str, message: str) -> None:
    assert refused(await logs(make_request("/", query), make_pod(), FakeNodes())) == (400, message)


async def test_one_stream_alone_is_behind_a_gate_that_is_off() -> None:
    answer = await logs(make_request("/", "stream=Stdout"), make_pod(), FakeNodes())
    assert refused(answer) == (422, 'PodLogOptions "web" is invalid: stream: Forbidden: may not be specified')
    nodes = FakeNodes()
    await logs(make_request("/", "stream=Stderr"), make_pod(), nodes, split_streams=True)
    assert nodes.log_options["stream"] == "Stderr"


@given(st.text(max_size=200), st.sampled_from(["tailLines", "sinceTime", "limitBytes", "stream", "follow"]))
def test_any_option_is_read_or_refused(value: str, name: str) -> None:
    with contextlib.suppress(BadRequest, Invalid):
        log_options(make_request("/", urlencode({name: value})), "web")


def test_options_are_decoded() -> None:
    query = "follow=true&previous=1&timestamps&tailLines=5&limitBytes=10&sinceSeconds=3&container=app&stream="
    assert log_options(make_request("/", query), "web") == {
        "container": "app",
        "sinceSeconds": 3,
        "tailLines": 5,
        "limitBytes": 10,
        "follow": True,
        "previous": True,
        "timestamps": True,
    }
    assert log_options(make_request("/", "follow=0&previous=False"), "web") == {}
    assert log_options(make_request("/"), "web", split_streams=True) == {"stream": "All"}


async def test_a_pod_without_a_node_has_no_log() -> None:
    answer = await logs(make_request("/"), make_pod(node=""), FakeNodes())
    assert isinstance(answer, Response)
    assert answer.status == 204


@pytest.mark.parametrize(
    ("nodes", "code", "message"),
    [
        ([], 404, 'nodes "n1" not found'),
        ([{"metadata": {"name": "n1"}}], 500, "no preferred addresses found; known addresses: []"),
        (
            [{"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "Hostname", "address": "h"}]}}],
            500,
            "error dialing backend: nothing that runs pods is connected for node n1",
        ),
    ],
)
async def test_a_node_that_cannot_be_reached_is_told(nodes: list[Object], code: int, message: str) -> None:
    view = FakeView(nodes=nodes)
    assert refused(await logs(make_request("/"), make_pod(), None, view=view)) == (code, message)
    assert refused(await connect_exec(make_request("/"), make_pod(), None, view=view)) == (code, message)
    assert refused(await connect_port_forward(make_request("/"), make_pod(), None, view=view)) == (code, message)


async def test_connections_have_no_dry_run() -> None:
    request, nodes = make_request("/", "dryRun=All"), FakeNodes()
    expected = (400, "dryRun is not supported")
    assert refused(await connect_exec(request, make_pod(), nodes)) == expected
    assert refused(await connect_port_forward(request, make_pod(), nodes)) == expected


@pytest.mark.parametrize("protocol", ["", "binary.k8s.io", "base64.binary.k8s.io"])
async def test_browsers_get_a_log_in_messages(protocol: str) -> None:
    nodes = FakeNodes()
    answer = await logs(websocket_request("follow=1", *([protocol] if protocol else [])), make_pod(), nodes)
    async with upgraded(answer) as (duplex, task):
        client = Socket(duplex)
        await client.read(2)
        nodes.more_log.set()
        await client.read()
        await asyncio.wait_for(asyncio.wait({task}), 5)
    lines = [base64.b64decode(line) if "64" in protocol else line for line in client.messages]
    assert lines == [b"", b"first line\n", b"second line\n"]
    assert client.close_code == 1000


async def test_a_browser_that_goes_stops_the_node() -> None:
    nodes = Wordy()
    answer = await logs(websocket_request("follow=1"), make_pod(), nodes)
    async with upgraded(answer) as (duplex, task):
        duplex.close()
        await asyncio.wait_for(nodes.stopped.wait(), 5)
        await asyncio.wait_for(asyncio.wait({task}), 5)
    wrong = await logs(websocket_request("", "v9"), make_pod(), nodes)
    assert isinstance(wrong, Response)
    assert wrong.status == 403


async def test_the_nodes_refusal_is_the_answer() -> None:
    nodes = FakeNodes()
    nodes.log_error = BadRequest("is waiting to start")
    assert refused(await logs(make_request("/"), make_pod(), nodes)) == (400, "is waiting to start")
    nodes.log_error = RuntimeError("gone")
    assert refused(await logs(make_request("/"), make_pod(), nodes)) == (500, "Internal error occurred: gone")


async def test_a_log_is_followed() -> None:
    nodes = FakeNodes()
    answer = await logs(make_request("/", "follow=true"), make_pod(), nodes)
    assert isinstance(answer, StreamingResponse)
    assert (answer.status, answer.content_type) == (200, "text/plain")
    near, far = MemoryDuplex.pair(1 << 16)
    running = asyncio.ensure_future(answer.run(far))  # type: ignore[arg-type]
    assert await near.read() == b"first line\n"
    nodes.more_log.set()
    assert await near.read() == b"second line\n"
    await running


class Wordy(FakeNodes):
    """Writes for ever, as fast as it may."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.stopped = asyncio.Event()

    async def logs(self, pod: Object, container: str, options: Mapping[str, Any], sink: Sink) -> None:
        try:
            while True:
                sink.write(LINE)
                self.written += len(LINE)
                await sink.drain()
                await asyncio.sleep(0)
        finally:
            self.stopped.set()


async def test_a_client_that_goes_stops_the_node() -> None:
    nodes = Wordy()
    answer = await logs(make_request("/", "follow=true"), make_pod(), nodes)
    assert isinstance(answer, StreamingResponse)
    _, far = MemoryDuplex.pair(1 << 14)
    running = asyncio.ensure_future(answer.run(far))  # type: ignore[arg-type]
    await asyncio.wait({running}, timeout=0.05)
    assert nodes.written < 1 << 20
    running.cancel()
    await asyncio.wait({running})
    await asyncio.wait_for(nodes.stopped.wait(), 5)


async def test_an_answer_that_is_never_read_stops_the_node() -> None:
    clock, nodes = FakeClock(), Wordy()
    await logs(make_request("/", "follow=true"), make_pod(), nodes, clock=clock)
    await clock.run(31)
    assert nodes.stopped.is_set()


class Quiet(FakeNodes):
    async def logs(self, pod: Object, container: str, options: Mapping[str, Any], sink: Sink) -> None:
        await self.more_log.wait()


async def test_a_quiet_node_does_not_hold_up_the_answer() -> None:
    clock, nodes = FakeClock(), Quiet()
    waiting = asyncio.ensure_future(logs(make_request("/", "follow=true"), make_pod(), nodes, clock=clock))
    await clock.run(2)
    answer = await waiting
    assert isinstance(answer, StreamingResponse)
    nodes.more_log.set()
    near, far = MemoryDuplex.pair(1 << 14)
    await answer.run(far)  # type: ignore[arg-type]
    far.close()
    assert await near.read() == b""
