"""Bytes that nobody foresaw on upgraded connections: they end, and nothing is raised."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.apiserver.model import Answer
from pilothouse.apiserver.streams.portforward import connect_port_forward
from pilothouse.apiserver.streams.remotecommand import connect_exec
from pilothouse.apiserver.streams.spdyframes import FrameWriter
from support.streamkit import FakeNodes, make_pod, spdy_request, upgraded, websocket_request

EXEC = "command=cat&stdin=1&stdout=1&tty=1"
KINDS = ["exec websocket", "exec base64", "exec spdy", "forward spdy", "forward tunnel", "forward channels"]


async def answered(kind: str) -> Answer:
    pod, nodes = make_pod(), FakeNodes()
    match kind:
        case "exec websocket":
            return await connect_exec(websocket_request(EXEC, "v5.channel.k8s.io"), pod, nodes)
        case "exec base64":
            return await connect_exec(websocket_request(EXEC, "v4.base64.channel.k8s.io"), pod, nodes)
        case "exec spdy":
            return await connect_exec(spdy_request(EXEC, "v4.channel.k8s.io"), pod, nodes)
        case "forward spdy":
            return await connect_port_forward(spdy_request("", "portforward.k8s.io"), pod, nodes)
        case "forward tunnel":
            return await connect_port_forward(websocket_request("", "SPDY/3.1+portforward.k8s.io"), pod, nodes)
    return await connect_port_forward(websocket_request("ports=9", "v4.channel.k8s.io"), pod, nodes)


def message(data: bytes) -> bytes:
    """Return a WebSocket message with a mask of zeros."""
    return b"\x82" + struct.pack(">BH", 0x80 | 126, len(data)) + bytes(4) + data


async def end(kind: str, pieces: list[bytes]) -> None:
    async with upgraded(await answered(kind)) as (duplex, task):
        for piece in pieces:
            duplex.write(piece)
            await asyncio.sleep(0)
        duplex.close()
        await asyncio.wait_for(asyncio.shield(task), 5)


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=40, deadline=None)
def test_any_bytes_end_quietly(kind: str, pieces: list[bytes]) -> None:
    asyncio.run(end(kind, pieces))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "spdy" not in kind])
@given(st.lists(st.binary(max_size=100), max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_messages_end_quietly(kind: str, payloads: list[bytes]) -> None:
    asyncio.run(end(kind, [message(payload) for payload in payloads]))


headers = st.dictionaries(
    st.sampled_from(["streamtype", "port", "requestid", "x"]),
    st.sampled_from(["error", "data", "stdin", "stdout", "resize", "1", "9", "0", "", "\xff"]),
)
WHAT = ["open", "data", "fin", "reset", "ping", "window", "settings", "goaway"]
steps = st.lists(
    st.tuples(
        st.sampled_from(WHAT),
        st.integers(0, 9),
        headers,
    ),
    max_size=15,
)


@pytest.mark.parametrize("kind", ["exec spdy", "forward spdy", "forward tunnel"])
@given(steps)
@settings(max_examples=60, deadline=None)
def test_any_frames_end_quietly(kind: str, steps: list[tuple[str, int, dict[str, str]]]) -> None:
    writer = FrameWriter()
    made: dict[str, Callable[[int, dict[str, str]], bytes]] = {
        "open": writer.syn_stream,
        "data": lambda number, _: writer.data(number, b"{" * number),
        "fin": lambda number, _: writer.data(number, b"", fin=True),
        "reset": lambda number, _: writer.rst_stream(number, 1),
        "ping": lambda number, _: writer.ping(number),
        "window": lambda number, _: writer.window_update(number, 1 << 30),
        "settings": lambda number, _: writer.settings({number: number}),
        "goaway": lambda number, _: writer.go_away(number, 0),
    }
    frames = [made[what](number, found) for what, number, found in steps]
    asyncio.run(end(kind, [message(frame) if kind == "forward tunnel" else frame for frame in frames]))
