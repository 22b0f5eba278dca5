"""Lists page by page: all pages show one moment, and the next can be on its way while one is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from .calls import Caller
from .codecs import RawList, open_page
from .selecting import query

__all__ = ["PAGE_SIZE", "raw_pages"]

PAGE_SIZE = 500
"""Objects that a list asks for at a time."""


async def raw_pages(
    caller: Caller,
    path: str,
    where: str,
    *,
    accept: str = "",
    ahead: bool = False,
    **parameters: str | int,
) -> AsyncGenerator[RawList, None]:
    """Give the pages of a list.

    where: what is listed, for errors. ahead: ask for the next page before one is given, for who wants them all.
    parameters: of the query; the resource version is that of the first page for all.
    """

    async def ask(token: str) -> RawList:
        chosen = {name: value for name, value in parameters.items() if not token or name not in _OF_THE_FIRST}
        data = await caller.call("GET", path + query(**chosen, continue_=token), accept=accept)
        return open_page(data, where)

    asked: asyncio.Task[RawList] | None = None
    token = ""
    try:
        while True:
            listed = await (ask(token) if asked is None else asked)
            asked, token = None, listed.metadata.continue_
            if token and ahead:
                asked = asyncio.get_running_loop().create_task(ask(token))
                await asyncio.sleep(0)  # in which it is sent
            yield listed
            if not token:
                return
    finally:
        if asked is not None:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)


_OF_THE_FIRST = frozenset({"resourceVersion", "resourceVersionMatch"})
