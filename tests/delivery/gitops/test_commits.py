"""Which commit brought an object, and when it was made."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pilothouse.delivery.gitops.commits import committed_at
from pilothouse.kinds import times
from pilothouse.kinds.structs import ConfigMap, replace
from support.gitopskit import World, config_map


async def test_a_sync_says_its_commit_and_a_change_by_hand_none(world: World) -> None:
    commit = world.repo.commit({"app/one.yaml": config_map("one", a="1")})
    await world.make()
    await world.settle()
    found = await world.client.get(ConfigMap, "one", "default")
    now = world.harness.clock.now()
    told = await world.gitops.commits.of(found, now)
    assert told is not None
    assert told[0] == commit
    assert times.parse(told[1] or "").timestamp() == int(world.repo.git("show", "--no-patch", "--format=%ct", commit))
    assert await world.gitops.commits.of(found, now + timedelta(minutes=3)) is None
    other = replace(found, metadata=replace(found.metadata, annotations={}))
    assert await world.gitops.commits.of(other, now) is None


@pytest.mark.parametrize(
    ("commit", "at"),
    [
        (b"tree 1\nauthor A <a@b> 1 +0000\ncommitter C <c@d> 1700000000 +0800\n\nwhy", "2023-11-14T22:13:20Z"),
        (b"tree 1\ncommitter C > <c@d> 1700000000 -0130\ngpgsig x\n\n", "2023-11-14T22:13:20Z"),
        (b"tree 1\n\ncommitter C <c@d> 1700000000 +0000", None),
        (b"committer C <c@d> 999999999999 +0000\n\n", None),
        (b"committer C <c@d> x +0000\n\n", None),
        (b"", None),
    ],
)
def test_when_a_commit_was_made(commit: bytes, at: str | None) -> None:
    assert committed_at(commit) == at
