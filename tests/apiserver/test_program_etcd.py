"""The API server as a program with etcd behind it: it starts on an empty one, again, and beside another server."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.program import Program, ProgramOptions
from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import ObjectMeta, Secret
from support.etcd import etcd_cluster

pytestmark = [pytest.mark.slow, pytest.mark.etcd]


async def started(directory: Path, store: str) -> Program:
    """Start a server; keys are put into the store beside objects, so its newest revision is none of an object's."""
    options = ProgramOptions(data_dir=str(directory), port=0, store=store, server=ServerOptions(metrics=Metrics()))
    async with asyncio.timeout(60):
        return await Program.start(options)


async def test_it_starts_on_an_empty_etcd_and_again(tmp_path: Path) -> None:
    async with etcd_cluster(tmp_path) as cluster:
        store = "etcd://" + ",".join(each.partition("://")[2] for each in cluster.endpoints)
        one = await started(tmp_path / "one", store)
        async with Client.from_kubeconfig(one.kubeconfig) as client:
            await client.create(Secret(metadata=ObjectMeta(name="s"), string_data={"a": "b"}), "default")
        (tmp_path / "two" / "pki").mkdir(parents=True, mode=0o700)
        for name in ("keys.key", "pki/encryption.json"):
            shutil.copy(tmp_path / "one" / name, tmp_path / "two" / name)
        two = await started(tmp_path / "two", store)
        await one.close()
        async with Client.from_kubeconfig(two.kubeconfig) as client:
            assert (await client.get(Secret, "s", "default")).data["a"] == b"b"
        await two.close()
        again = await started(tmp_path / "one", store)
        await again.close()
