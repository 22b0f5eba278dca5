"""Lists in pages: one moment for all of them, the next asked for ahead, and nothing left behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from pilothouse.client import Answer, Client
from pilothouse.client.calls import Caller
from pilothouse.client.paging import raw_pages
from pilothouse.kinds.status import Expired
from pilothouse.kinds.structs import ConfigMap


class Paged:
    """A list of as many pages as told; the third one never comes if it is to hang."""

    def __init__(self, pages: int, *, hangs: bool = False, expires: bool = False) -> None:
        self.pages, self.hangs, self.expires = pages, hangs, expires
        self.targets: list[str] = []
        self.cancelled = False

    async def request(self, method: str, target: str, headers: Any = (), body: bytes = b"", **options: Any) -> Answer:
        self.targets.append(target)
        number = len(self.targets)
        if number == 3 and self.expires:
            body = b'{"kind":"Status","reason":"Expired","code":410,"message":"too old"}'
            return Answer(410, [("content-type", "application/json")], body)
        if number == 3 and self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        token = f"t{number}" if number < self.pages else ""
        item = b'{"metadata":{"name":"n%d"}}' % number
        page = b'{"metadata":{"resourceVersion":"5","continue":"%b"},"items":[%b]}' % (token.encode(), item)
        return Answer(200, [("content-type", "application/json")], page)

    async def aclose(self) -> None:
        return None


async def test_a_page_is_asked_for_when_it_is_needed() -> None:
    server = Paged(4)
    async with aclosing(Client.for_transport(server).list(ConfigMap, limit=1)) as found:
        assert (await anext(found)).metadata.name == "n1"
        assert len(server.targets) == 1
        assert [one.metadata.name async for one in found] == ["n2", "n3", "n4"]
    assert server.targets[1] == "/api/v1/namespaces/default/configmaps?limit=1&continue=t1"


async def test_who_wants_all_gets_the_next_page_while_one_is_read() -> None:
    server = Paged(3)
    pages = raw_pages(Caller(server), "/x", "x", ahead=True, limit=1, resourceVersion="0")
    await anext(pages)
    assert server.targets == ["/x?limit=1&resourceVersion=0", "/x?limit=1&continue=t1"]
    assert len([page async for page in pages]) == 2
    assert [one.metadata.name for one in await Client.for_transport(Paged(3)).list_all(ConfigMap)] == ["n1", "n2", "n3"]


async def test_what_was_asked_for_ahead_is_ended_with_the_iteration() -> None:
    server = Paged(9, hangs=True)
    async with aclosing(raw_pages(Caller(server), "/x", "x", ahead=True)) as pages:
        await anext(pages)
        await anext(pages)
    assert server.cancelled
    server = Paged(9, hangs=True)
    listing = asyncio.ensure_future(Client.for_transport(server).list_all(ConfigMap))
    await asyncio.sleep(0.01)
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing
    assert server.cancelled


async def test_a_moment_that_is_forgotten_meanwhile() -> None:
    with pytest.raises(Expired):
        await Client.for_transport(Paged(9, expires=True)).list_all(ConfigMap)
