"""Directories of deleted volumes are removed by their node, and nothing else is, whatever lies in them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.node.volumes.localdirs import REMOVED, ROOT, TO_REMOVE, LocalDirectories
from pilothouse.node.volumes.removal import remove_folder
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from support.nodekit import NEEDS_ROOT

ONE = "pvc-00000000-0000-4000-8000-000000000001_default_data"
TWO = "pvc-00000000-0000-4000-8000-000000000002_default_data"


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory) / "volumes"
        made.mkdir()
        yield made


def test_all_that_is_in_a_directory_goes_however_deep_it_is(root: Path) -> None:
    top = root / "one"
    top.mkdir()
    (top / ".1").mkdir()
    (top / ".2").write_text("a file with the name that a directory would get")
    os.mkfifo(top / "fifo")
    place = os.open(top, os.O_RDONLY)
    for number in range(1500):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        if number % 100 == 0:
            os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
        os.close(place)
        place = inner
    os.close(place)
    remove_folder(str(root), "one")
    assert list(root.iterdir()) == []
    remove_folder(str(root), "one")
    remove_folder(str(root / "none"), "one")


def test_what_links_lead_to_stays(root: Path) -> None:
    kept = root.parent / "kept"
    (kept / "inner").mkdir(parents=True)
    (kept / "file").write_text("x")
    (root / "one" / "deep").mkdir(parents=True)
    (root / "one" / "link").symlink_to(kept)
    (root / "one" / "deep" / "link").symlink_to(kept)
    (root / "one" / "up").symlink_to("..")
    os.link(kept / "file", root / "one" / "hard")
    (root / "two").symlink_to(kept)
    for name in ("one", "two"):
        remove_folder(str(root), name)
    assert list(root.iterdir()) == []
    assert (kept / "file").read_text() == "x"
    assert (kept / "inner").is_dir()


@pytest.mark.parametrize("name", ["", ".", "..", "../kept", "a/b", "/etc", ".hidden", "x" * 300, "a\0b", "a\n"])
def test_only_names_right_in_the_root_are_taken(root: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a directory"):
        remove_folder(str(root), name)


def test_what_is_unreadable_for_its_owner_goes_too(root: Path) -> None:
    (root / "one" / "inner").mkdir(parents=True)
    (root / "one" / "inner" / "file").write_text("x")
    (root / "one" / "inner").chmod(0)
    (root / "one").chmod(0)
    remove_folder(str(root), "one")
    assert list(root.iterdir()) == []


@NEEDS_ROOT
def test_another_mount_is_not_emptied(root: Path) -> None:
    inner = root / "one" / "deep" / "mount"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inner)], check=True)
    try:
        (inner / "file").write_text("x")
        with pytest.raises(OSError, match=r"busy|mount"):
            remove_folder(str(root), "one")
        assert (inner / "file").exists()
    finally:
        subprocess.run(["umount", str(inner)], check=True)
    remove_folder(str(root), "one")


async def test_a_node_removes_what_it_is_asked_to_and_says_so(root: Path) -> None:
    for name in (ONE, TWO, "others"):
        (root / name).mkdir()
        (root / name / "file").write_text("x")
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        asked = {"name": "n", "annotations": {TO_REMOVE: ONE}}
        await plane.call("POST", "/api/v1/nodes", {"kind": "Node", "metadata": asked})
        manager = Manager(client)
        directories = LocalDirectories(manager, "n", str(root))
        async with manager:
            await directories.start()
            await directories.wait_synced()
            await plane.wait_for("/api/v1/nodes/n", lambda node: _removed(node) == ONE)
            assert sorted(_names(root)) == sorted([TWO, "others"])
            change = {"metadata": {"annotations": {TO_REMOVE: f"others,{TWO}"}}}
            await plane.call("PATCH", "/api/v1/nodes/n", change)
            await plane.wait_for("/api/v1/nodes/n", lambda node: _removed(node) == TWO)
            assert _names(root) == ["others"]
            await plane.wait_for("/api/v1/nodes/n", lambda _: bool(directories.problems()))
            assert '"others" is no directory of a volume' in directories.problems()[0]
            await plane.call("PATCH", "/api/v1/nodes/n", {"metadata": {"annotations": {TO_REMOVE: None}}})
            await plane.wait_for("/api/v1/nodes/n", lambda node: _removed(node) == "")
            await directories.stop()


def _removed(node: dict[str, Any] | None) -> str:
    return str((node or {}).get("metadata", {}).get("annotations", {}).get(REMOVED, ""))


def test_both_sides_have_the_same_words() -> None:
    from pilothouse.workloads import volumes_local

    ours = (ROOT, TO_REMOVE, REMOVED)
    assert ours == (volumes_local.ROOT_OF_NODE, volumes_local.TO_REMOVE, volumes_local.REMOVED)


def _names(root: Path) -> list[str]:
    return os.listdir(root)
