"""Streams carried to a node's own API: this project's server stands for the kubelet, behind TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilothouse.apiserver.http.pipes import MemoryDuplex
from pilothouse.apiserver.model import Response, StreamingResponse, refusal
from pilothouse.apiserver.proxying.reverse import ReverseProxy
from pilothouse.apiserver.streams.kubelet import KubeletStreams
from pilothouse.apiserver.streams.logs import logs
from pilothouse.apiserver.streams.podoptions import ExecOptions
from pilothouse.apiserver.streams.session import Session, finish
from pilothouse.foundation import tls
from pilothouse.kinds.status import ApiStatus, BadRequest, not_found
from support.kubeletkit import Kubelet, kubelet_streams
from support.proxykit import Authority, FakeView, http_server
from support.streamkit import LINE, FakeNodes, make_pod, make_request


@pytest.fixture
def nodes() -> FakeNodes:
    return FakeNodes()


@pytest.fixture
async def kubelet(nodes: FakeNodes, tmp_path: Path) -> AsyncIterator[tuple[KubeletStreams, Kubelet]]:
    async with kubelet_streams(nodes, tmp_path) as found:
        yield found


class Screen:
    """Collects what a command writes."""

    def __init__(self, options: ExecOptions) -> None:
        self.out: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self.session = Session(options, self._write, self._drain)

    def _write(self, name: str, data: bytes) -> None:
        self.out[name] += data

    async def _drain(self) -> None:
        await asyncio.sleep(0)


BOTH = ExecOptions(stdout=True, stderr=True)


async def test_a_command_runs_on_the_node(kubelet: tuple[KubeletStreams, Kubelet], nodes: FakeNodes) -> None:
    streams, served = kubelet
    screen = Screen(BOTH)
    assert await streams.exec(make_pod(), "side", ["both"], screen.session) == 0
    assert screen.out == {"stdout": b"to out\n", "stderr": b"to err\n"}
    assert nodes.calls == [("web", "side", ("both",), False)]
    assert served.certified == [True]
    assert await streams.exec(make_pod(), "app", ["exit", "77"], screen.session) == 77


async def test_input_and_size_reach_the_node(kubelet: tuple[KubeletStreams, Kubelet], nodes: FakeNodes) -> None:
    streams, _ = kubelet
    screen = Screen(ExecOptions(stdin=True, stdout=True))
    data = LINE * 1024

    async def type_in() -> None:
        for start in range(0, len(data), 50_000):
            screen.session.stdin_inbox.feed(data[start : start + 50_000])
            await screen.session.stdin_inbox.room()
        screen.session.stdin_inbox.end()

    typing = asyncio.create_task(type_in())
    assert await streams.exec(make_pod(), "app", [], screen.session, attach=True) == 0
    await typing
    assert screen.out["stdout"] == data
    assert nodes.calls == [("web", "app", (), True)]
    terminal = Screen(ExecOptions(stdout=True, tty=True))
    terminal.session.resize_inbox.feed(b'{"Width":91,"Height":33}\n')
    assert await streams.exec(make_pod(), "app", ["size"], terminal.session) == 0
    assert terminal.out["stdout"] == b"91x33\n"


async def test_what_goes_wrong_on_the_node_is_told(kubelet: tuple[KubeletStreams, Kubelet], nodes: FakeNodes) -> None:
    streams, _ = kubelet
    with pytest.raises(ApiStatus, match="container is not running") as caught:
        await streams.exec(make_pod(), "app", ["fail"], Screen(BOTH).session)
    assert caught.value.code == 400
    with pytest.raises(ApiStatus, match="container nope is not valid for pod web"):
        await streams.exec(make_pod(), "nope", ["both"], Screen(BOTH).session)
    with pytest.raises(ApiStatus, match="at least 1 of stdin"):
        await streams.exec(make_pod(), "app", ["both"], Screen(ExecOptions()).session)
    with pytest.raises(ApiStatus, match='nodes "n2" not found'):
        await streams.exec(make_pod(node="n2"), "app", ["both"], Screen(BOTH).session)


async def test_a_command_is_stopped_with_its_caller(kubelet: tuple[KubeletStreams, Kubelet], nodes: FakeNodes) -> None:
    streams, _ = kubelet
    task = asyncio.create_task(streams.exec(make_pod(), "app", ["hang"], Screen(BOTH).session))
    await asyncio.wait_for(nodes.started.wait(), 5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await asyncio.wait_for(nodes.cancelled.wait(), 5)


async def test_a_port_is_forwarded_through_the_node(kubelet: tuple[KubeletStreams, Kubelet]) -> None:
    streams, _ = kubelet
    near, far = MemoryDuplex.pair(1 << 16)
    task = asyncio.create_task(streams.port_forward(make_pod(), 9, far))
    data = LINE * 512
    near.write(data)
    got = b""
    while len(got) < len(data):
        got += await asyncio.wait_for(near.read(), 5)
    assert got == data
    near.close()
    await asyncio.wait_for(task, 5)
    near, far = MemoryDuplex.pair(1 << 16)
    with pytest.raises(ApiStatus, match="error forwarding port 1 to pod web_default, uid u1: nothing listens"):
        await streams.port_forward(make_pod(), 1, far)


async def test_logs_come_from_the_node(kubelet: tuple[KubeletStreams, Kubelet], nodes: FakeNodes) -> None:
    streams, _ = kubelet
    query = "container=app&tailLines=3&timestamps=1&sinceTime=2026-01-02T03:04:05%2B01:00"
    answer = await logs(make_request("/x", query), make_pod(), streams)
    assert isinstance(answer, StreamingResponse)
    near, far = MemoryDuplex.pair(1 << 16)
    await answer.run(far)  # type: ignore[arg-type]
    assert await near.read() == b"first line\n"
    assert nodes.log_options["tailLines"] == 3
    assert nodes.log_options["timestamps"]
    assert nodes.log_options["sinceTime"].isoformat() == "2026-01-02T02:04:05+00:00"
    nodes.log_error = BadRequest('container "app" in pod "web" is waiting to start: ContainerCreating')
    refused = await logs(make_request("/x", "container=app"), make_pod(), streams)
    assert isinstance(refused, Response)
    assert isinstance(refused.body, bytes)
    assert refused.status == 400
    assert "is waiting to start" in json.loads(refused.body)["message"]
    nodes.log_error = not_found("", "pods", "web")
    unknown = await logs(make_request("/x", "container=app"), make_pod(), streams)
    assert isinstance(unknown, Response)
    assert isinstance(unknown.body, bytes)
    told = json.loads(unknown.body)
    assert told["message"] == "the server could not find the requested resource ( pods/log web)"
    assert (told["code"], told["reason"]) == (404, "NotFound")


async def test_logs_unchecked_are_refused_without_settings_for_them(kubelet: tuple[KubeletStreams, Kubelet]) -> None:
    streams, _ = kubelet
    answer = await logs(make_request("/x", "container=app&insecureSkipTLSVerifyBackend=true"), make_pod(), streams)
    assert isinstance(answer, Response)
    assert answer.status == 500


async def test_a_node_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with http_server(lambda request: refusal(BadRequest(""))) as port:
        pass
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    proxy = ReverseProxy()
    view = FakeView(nodes=[{"metadata": {"name": "n1"}, "status": status}])
    streams = KubeletStreams(view, proxy, tls.client_context(ca=str(Authority(tmp_path, "ca").file)))
    told = await finish(streams, make_pod(), "app", BOTH, Screen(BOTH).session, attach=False)
    assert told["message"] == f"error dialing backend: dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert told["code"] == 500
    assert streams.address({"status": {}}) is None
    assert streams.address({"status": status}) == ("127.0.0.1", port)
    await proxy.close()
