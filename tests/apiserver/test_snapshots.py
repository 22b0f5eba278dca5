"""A copy of the store over the API: whole, for administrators alone, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.program import Program, ProgramOptions
from pilothouse.apiserver.snapshots import SNAPSHOT_PATH
from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import ApiStatus
from pilothouse.store.etcd.snapshot_file import save, snapshot_size
from pilothouse.store.offline import restore_snapshot


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    options = ProgramOptions(
        data_dir=str(tmp_path / "data"), port=0, components=True, node="one", server=ServerOptions(metrics=Metrics())
    )
    program = await Program.start(options)
    try:
        yield program
    finally:
        await program.close()


async def test_it_is_whole(program: Program, tmp_path: Path) -> None:
    async with Client.from_kubeconfig(program.kubeconfig) as client:
        answer = await client.transport.request("GET", SNAPSHOT_PATH, stream=True)
        assert answer.stream is not None
        await save(answer.stream, str(tmp_path / "copy"))
    size = snapshot_size(str(tmp_path / "copy"))
    assert restore_snapshot(str(tmp_path / "copy"), str(tmp_path / "new"), size=size).keys > 0


@pytest.mark.parametrize("name", ["controllers", "agent"])
async def test_who_may_not_do_everything_may_not_have_it(program: Program, name: str) -> None:
    async with Client.from_kubeconfig(Path(program.options.data_dir) / f"{name}.kubeconfig", backoff=None) as client:
        with pytest.raises(ApiStatus) as caught:
            await client.request("GET", SNAPSHOT_PATH)
    assert caught.value.code == 403


async def test_one_at_a_time_and_only_to_read(program: Program) -> None:
    async with Client.from_kubeconfig(program.kubeconfig, backoff=None) as client:
        with pytest.raises(ApiStatus) as caught:
            await client.request("POST", SNAPSHOT_PATH)
        assert caught.value.code == 405
        both = await asyncio.gather(*(client.request("GET", SNAPSHOT_PATH) for _ in range(2)), return_exceptions=True)
        assert sorted(getattr(each, "code", 200) for each in both) == [200, 429]
