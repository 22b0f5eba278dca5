"""The shared keep-alive stream against a scripted member."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.grpc import ClientStream
from pilothouse.foundation.retry import Backoff
from pilothouse.store import errors
from pilothouse.store.etcd.balancer import Connection
from pilothouse.store.etcd.caller import Caller
from pilothouse.store.etcd.leases import LeaseKeeper
from pilothouse.store.etcd.settings import EtcdOptions


class SilentStream:
    """A stream that takes keep-alives and answers none."""

    def __init__(self) -> None:
        self.asked = 0

    def send(self, message: bytes) -> None:
        assert message
        self.asked += 1

    def cancel(self) -> None:
        return

    async def __aiter__(self) -> AsyncIterator[bytes]:
        await asyncio.get_running_loop().create_future()
        yield b""


class SilentCaller:
    """Opens silent streams."""

    backoff = Backoff(base=0.05, cap=1.0, attempts=None)

    def __init__(self) -> None:
        self.streams: list[SilentStream] = []

    async def open(self, path: str) -> tuple[Connection, ClientStream]:
        assert path == "/etcdserverpb.Lease/LeaseKeepAlive"
        self.streams.append(SilentStream())
        return cast("Connection", None), cast("ClientStream", self.streams[-1])


async def test_closing_tells_those_who_wait_at_once() -> None:
    clock, caller = FakeClock(), SilentCaller()
    options = EtcdOptions(endpoints=("http://127.0.0.1:1",), clock=clock, request_timeout=0.5)
    keeper = LeaseKeeper(options, cast("Caller", caller))
    waiting = asyncio.create_task(keeper.keep_alive(7))
    await clock.run(2)
    assert [stream.asked for stream in caller.streams] == [1]
    await keeper.close()
    with pytest.raises(errors.Unavailable, match="the store is closed"):
        await waiting
    with pytest.raises(errors.Unavailable, match="the store is closed"):
        await keeper.keep_alive(7)
    assert len(caller.streams) == 1
