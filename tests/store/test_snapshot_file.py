"""Saved snapshots on disk: whole or not there, and nobody else's file in between."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilothouse.store.errors import DamagedData
from pilothouse.store.etcd.snapshot_file import filling, save, snapshot_size

CONTENT = b"snapshot " * 100


async def blocks(content: bytes = CONTENT, digest: bytes | None = None) -> AsyncIterator[bytes]:
    whole = content + filling(len(content))
    yield whole[:700]
    yield whole[700:]
    yield digest or hashlib.sha256(whole).digest()


def test_a_snapshot_is_saved_whole_and_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "backup.db"
    assert asyncio.run(save(blocks(), str(path))) == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert snapshot_size(str(path)) == len(CONTENT)
    assert list(tmp_path.iterdir()) == [path]


def test_what_stands_beside_it_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("keep")
    (tmp_path / "backup.db.part").symlink_to(other)
    asyncio.run(save(blocks(), str(tmp_path / "backup.db")))
    assert (other.read_text(), (tmp_path / "backup.db.part").is_symlink()) == ("keep", True)


def test_a_snapshot_that_arrives_damaged_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DamagedData, match="do not match their checksum"):
        asyncio.run(save(blocks(digest=bytes(32)), str(tmp_path / "backup.db")))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "backup.db"
    path.write_text("older")
    with pytest.raises(FileExistsError):
        asyncio.run(save(blocks(), str(path)))
    assert (path.read_text(), list(tmp_path.iterdir())) == ("older", [path])
