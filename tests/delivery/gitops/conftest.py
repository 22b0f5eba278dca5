"""Fixtures of GitOps: see `support.gitopskit`."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.delivery.gitops import GitopsOptions, add_gitops, install_gitops_kinds
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Namespace, ObjectMeta
from pilothouse.operator import Harness
from pilothouse.testing import ControlPlane
from support.gitopskit import Begin, World
from support.gitrepo import GitRepo


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo(tmp_path / "repo")


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_gitops_kinds(client)
        await client.create(Namespace(metadata=ObjectMeta(name="argocd")))
        yield plane


@pytest.fixture
def begin(plane: ControlPlane, repo: GitRepo, tmp_path: Path) -> Begin:
    """Give a function that runs controllers on the plane; several, one after the other, are restarts."""

    @asynccontextmanager
    async def run(clock: FakeClock | None = None, **options: Any) -> AsyncIterator[World]:
        async with Client.for_transport(plane.transport, plane.user) as client:
            harness = Harness(client, clock=clock)
            given = GitopsOptions(directory=str(tmp_path / "gitops"), **options)
            gitops = add_gitops(harness.manager, given, source=random.Random(1))
            async with harness:
                yield World(plane, client, harness, gitops, repo)
            await gitops.aclose()

    return run


@pytest.fixture
async def world(begin: Begin) -> AsyncIterator[World]:
    async with begin() as world:
        yield world
