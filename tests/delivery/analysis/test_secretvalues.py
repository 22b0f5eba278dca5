"""What is in secrets: read once, followed while it is asked for, and never more than a bounded number of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

import pytest

from pilothouse.client import Client
from pilothouse.delivery.analysis.secretvalues import SecretValues
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import Secret, from_dict
from pilothouse.testing import ControlPlane

DEADLINE = 30.0


def secret(name: str, **values: str) -> Secret:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return from_dict({"metadata": {"name": name, "namespace": "default"}, "data": data}, Secret)


class CountingClient:
    """Counts reads of single objects."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.reads = 0
        self.list_watch = client.list_watch

    async def get(self, kind: type[Secret], name: str, namespace: str) -> Secret:
        self.reads += 1
        return await self._client.get(kind, name, namespace)


@contextlib.asynccontextmanager
async def following(**bounds: float) -> AsyncIterator[tuple[SecretValues, CountingClient, Client, FakeClock]]:
    clock = FakeClock()
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        counting = CountingClient(client)
        values = SecretValues(counting, clock, **bounds)  # type: ignore[arg-type]
        running = asyncio.create_task(values.run())
        try:
            yield values, counting, client, clock
        finally:
            running.cancel()
            await asyncio.wait([running])
            assert len(values) == 0, "nothing is followed after the end"


async def until_cached(values: SecretValues, counting: CountingClient, name: str, wanted: bytes) -> None:
    """Ask until it is answered without a read."""
    async with asyncio.timeout(DEADLINE):
        while True:
            before = counting.reads
            if await values.value("default", name, "t") == wanted and counting.reads == before:
                return
            await asyncio.sleep(0.01)


async def until_gone(values: SecretValues, name: str) -> None:
    """Ask until there is no such secret."""
    with contextlib.suppress(NotFound):
        while True:
            await values.value("default", name, "t")
            await asyncio.sleep(0.01)


async def test_a_secret_that_is_asked_for_again_and_again_is_read_no_more_and_its_changes_are_seen() -> None:
    async with following() as (values, counting, client, _):
        await client.create(secret("token", t="one"))
        assert await values.value("default", "token", "t") == b"one"
        assert counting.reads == 1, "nobody waits for a watch"
        await until_cached(values, counting, "token", b"one")
        reads = counting.reads
        for _ in range(20):
            assert await values.value("default", "token", "t") == b"one"
        assert counting.reads == reads
        await client.patch(Secret, "token", {"stringData": {"t": "two"}}, "default")
        await until_cached(values, counting, "token", b"two")


async def test_what_is_not_in_the_cache_is_read_as_it_may_just_have_been_made() -> None:
    async with following() as (values, counting, client, _):
        with pytest.raises(NotFound):
            await values.value("default", "late", "t")
        await client.create(secret("late", t="one"))
        assert await values.value("default", "late", "t") == b"one"
        assert await values.value("default", "late", "other") is None
        await until_cached(values, counting, "late", b"one")
        await client.delete(Secret, "late", "default")
        async with asyncio.timeout(DEADLINE):
            await until_gone(values, "late")


async def test_no_more_than_so_many_are_followed_and_none_that_nobody_asks_for() -> None:
    async with following(most=2, idle_seconds=100.0) as (values, counting, client, clock):
        for name in ("a", "b", "c"):
            await client.create(secret(name, t=name))
            assert await values.value("default", name, "t") == name.encode()
        assert len(values) == 2
        for _ in range(3):
            reads = counting.reads
            assert await values.value("default", "c", "t") == b"c"
            assert counting.reads == reads + 1, "one too many is read each time"
        clock.advance(80)
        await until_cached(values, counting, "b", b"b")
        clock.advance(50)
        async with asyncio.timeout(DEADLINE):
            while len(values) != 1:  # noqa: ASYNC110  # it ends informers, which takes a moment
                await asyncio.sleep(0.01)
        await until_cached(values, counting, "b", b"b")
        assert await values.value("default", "c", "t") == b"c"
        assert len(values) == 2, "there is room again"
