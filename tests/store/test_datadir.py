from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from pilothouse.foundation.files import OsFileSystem
from pilothouse.foundation.ids import SeededIds
from pilothouse.store.datadir import DataDir, Identity, read_identity
from pilothouse.store.errors import DamagedData, DirectoryInUse, DirectoryPermission, NewerFormat
from pilothouse.store.sealed import write_sealed
from support.faultfs import Fault, FaultFileSystem, SimulatedCrash, count_points

_PATH = "/data/store"
_HOLD = """
import sys
from pilothouse.foundation.files import OsFileSystem
from pilothouse.store.datadir import DataDir
held = DataDir.open(OsFileSystem(), sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_new_directory_is_private_and_has_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store"
    directory = DataDir.open(OsFileSystem(), str(path), ids=SeededIds(1), pid=42)
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "LOCK").read_text() == "42\n"
    assert sorted(entry.name for entry in path.iterdir()) == ["LOCK", "VERSION"]
    assert all(entry.stat().st_mode & 0o777 == 0o600 for entry in path.iterdir())
    assert (directory.wal, directory.snap) == (str(path / "wal"), str(path / "snap"))
    expected = SeededIds(1)
    assert directory.identity == Identity(expected.int63(), expected.int63())
    directory.close()
    directory.close()


def test_the_identity_stays(tmp_path: Path) -> None:
    fs = OsFileSystem()
    first = DataDir.open(fs, str(tmp_path / "s"))
    first.close()
    second = DataDir.open(fs, str(tmp_path / "s"))
    assert second.identity == first.identity == read_identity(fs, str(tmp_path / "s"))
    second.close()
    with pytest.raises(DamagedData, match="not of 2 of 1"):
        DataDir.open(fs, str(tmp_path / "s"), identity=Identity(1, 2))
    DataDir.open(fs, str(tmp_path / "s")).close()


def test_a_given_identity_is_kept() -> None:
    fs = FaultFileSystem()
    DataDir.open(fs, _PATH, identity=Identity(1, 2)).close()
    assert DataDir.open(fs, _PATH).identity == Identity(1, 2)


def test_a_directory_in_use_is_refused_with_its_owner(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _HOLD,
            path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == b"held\n"
        before = (tmp_path / "s" / "LOCK").read_bytes()
        with pytest.raises(DirectoryInUse, match=f"in use by process {owner.pid}:"):
            DataDir.open(OsFileSystem(), path)
        assert (tmp_path / "s" / "LOCK").read_bytes() == before
    finally:
        owner.kill()
        owner.communicate()
    DataDir.open(OsFileSystem(), path).close()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o770, 0o701])
def test_a_directory_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "s"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(DirectoryPermission, match=f"has mode {mode:o}.*chmod 700 {path}"):
        DataDir.open(OsFileSystem(), str(path))
    assert list(path.iterdir()) == []


def test_what_is_not_a_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(DirectoryPermission, match="is not a directory"):
        DataDir.open(OsFileSystem(), str(path))
    with pytest.raises(DirectoryPermission, match="cannot be made"):
        DataDir.open(OsFileSystem(), str(path / "below"))
    assert path.read_text() == "mine"


class _Denying(FaultFileSystem):
    """Refuses what a user without the right may not do; root may everything on a real file system."""

    denied = ""

    def listdir(self, path: str) -> list[str]:
        if self.denied == "listdir":
            raise PermissionError(13, "Permission denied", path)
        return super().listdir(path)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        if self.denied == "open" and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", path)
        return super().open(path, flags, mode)

    def makedirs(self, path: str, mode: int = 0o700) -> None:
        if self.denied == "makedirs":
            raise PermissionError(13, "Permission denied", path)
        super().makedirs(path, mode)


@pytest.mark.parametrize(
    ("denied", "match"),
    [("listdir", "cannot be read.*chmod 700"), ("open", "cannot be written.*chmod 700"), ("makedirs", "mkdir -m 700")],
)
def test_missing_rights_are_named_with_the_remedy(denied: str, match: str) -> None:
    fs = _Denying()
    fs.denied = denied
    with pytest.raises(DirectoryPermission, match=match):
        DataDir.open(fs, _PATH)
    assert fs.open_descriptors == 0


def test_a_newer_directory_is_refused_with_nothing_touched() -> None:
    fs = FaultFileSystem()
    DataDir.open(fs, _PATH).close()
    write_sealed(fs, f"{_PATH}/VERSION", Identity(1, 2), 9)
    before = fs.points
    with pytest.raises(NewerFormat, match="format 9 was written by a newer program"):
        DataDir.open(fs, _PATH)
    assert fs.points == before
    assert fs.open_descriptors == 0


def test_damage_to_the_identity_is_refused() -> None:
    fs = FaultFileSystem()
    DataDir.open(fs, _PATH).close()
    path = f"{_PATH}/VERSION"
    content = fs.read(path)
    fs.damage(path, content.index(b"member_id") + 12, b"0")
    with pytest.raises(DamagedData, match="the checksum is wrong"):
        DataDir.open(fs, _PATH)
    fs.damage(path, 0, bytes(len(content)))
    with pytest.raises(DamagedData, match="not a document of the store"):
        DataDir.open(fs, _PATH)
    fs.unlink(path)
    with pytest.raises(DamagedData, match="is not a data directory"):
        read_identity(fs, _PATH)
    fs.makedirs(f"{_PATH}/wal")
    with pytest.raises(DamagedData, match="the file is missing, though there is wal"):
        DataDir.open(fs, _PATH)
    assert fs.open_descriptors == 0


def test_an_opened_directory_and_its_identity_survive_a_loss_of_power() -> None:
    fs = FaultFileSystem()
    directory = DataDir.open(fs, _PATH)
    for seed in range(10):
        assert read_identity(fs.crash_image(Random(seed)), _PATH) == directory.identity


def test_the_directories_above_it_survive_a_loss_of_power() -> None:
    fs = FaultFileSystem()
    path = "/data/new/newer/store"
    directory = DataDir.open(fs, path)
    for seed in range(20):
        assert read_identity(fs.crash_image(Random(seed)), path) == directory.identity


def _make(fs: FaultFileSystem) -> None:
    directory = DataDir.open(fs, _PATH, ids=SeededIds(1))
    fs.makedirs(directory.wal)
    fs.sync_directory(directory.path)
    directory.close()


def test_a_crash_while_it_is_made_leaves_one_that_opens() -> None:
    for point in range(len(count_points(_make))):
        fs = FaultFileSystem(plan={point: Fault.CRASH})
        with pytest.raises(SimulatedCrash):
            _make(fs)
        for image in (fs.killed(), *(fs.crash_image(Random(seed)) for seed in range(20))):
            opened = DataDir.open(image, _PATH, ids=SeededIds(2))
            if image.exists(opened.wal):
                first = SeededIds(1)
                assert opened.identity == Identity(first.int63(), first.int63())


@pytest.mark.parametrize("fault", [Fault.EIO, Fault.ENOSPC])
def test_a_fault_while_it_is_made_holds_nothing(fault: Fault) -> None:
    for point in range(len(count_points(_make)) - 2):
        fs = FaultFileSystem(plan={point: fault})
        with pytest.raises(OSError, match=r"Errno"):
            _make(fs)
        assert fs.open_descriptors == 0
        DataDir.open(fs, _PATH).close()
