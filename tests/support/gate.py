"""What stands between clients and a control plane: it may be down, be replaced, compacted, or fall silent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from pilothouse.store.errors import Compacted
from pilothouse.testing import ControlPlane

__all__ = ["Gate", "compact"]


async def compact(plane: ControlPlane) -> None:
    revision = plane.server.cacher.revision
    with suppress(Compacted):
        await plane.server.store.compact(revision)
    plane.server.cacher.compacted(revision)


class Gate:
    """Stands before a control plane, which may be down, be replaced, or keep silent on its streams."""

    def __init__(self) -> None:
        self.plane: ControlPlane | None = None
        self.silent = asyncio.Event()
        self.cut = asyncio.Event()
        self.streams = 0

    def fall_silent(self) -> None:
        """Say nothing more on the present streams; those to come are well."""
        self.silent.set()
        self.silent = asyncio.Event()

    def cut_off(self) -> None:
        """End the present streams that are silent by an error."""
        self.cut.set()
        self.cut = asyncio.Event()

    async def request(self, method: str, target: str, headers: Any = (), body: bytes = b"", user: Any = None) -> Any:
        if self.plane is None:
            raise ConnectionRefusedError("the server is down")
        answer = await self.plane.transport.request(method, target, headers, body, user)
        if answer.stream is not None and "watch=" in target:
            self.streams += 1
            made: Any = answer
            made.stream = _Gated(answer.stream, self)
        return answer


class _Gated:
    def __init__(self, inner: Any, gate: Gate) -> None:
        self.inner = inner
        self.silent = gate.silent
        self.cut = gate.cut

    def __aiter__(self) -> _Gated:
        return self

    async def __anext__(self) -> bytes:
        piece: bytes = await self.inner.__anext__()
        if self.silent.is_set():
            await self.cut.wait()
            raise ConnectionResetError("cut")
        return piece

    async def aclose(self) -> None:
        await self.inner.aclose()
