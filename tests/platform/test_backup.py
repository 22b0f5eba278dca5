"""A backup holds all that was there, of a running platform too; restored it works, and nothing but a whole one is."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilothouse.apiserver.encryption_config import Encryption
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.program import Program, ProgramOptions
from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Secret
from pilothouse.platform import backup as room
from pilothouse.platform.backup import Saved, backup
from pilothouse.platform.backupfile import FORMAT, MANIFEST, BackupError, Entry, Manifest, read_manifest
from pilothouse.platform.nodeplan import NodePlan, write_plan
from pilothouse.platform.restore import restore
from pilothouse.platform.state import take_lock


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[Client]:
    options = ProgramOptions(data_dir=str(directory), port=0, server=ServerOptions(metrics=Metrics()))
    program = await Program.start(options)
    try:
        async with Client.from_kubeconfig(program.kubeconfig) as client:
            yield client
    finally:
        await program.close()


async def fill(client: Client) -> None:
    await client.create(Secret(metadata=ObjectMeta(name="s", namespace="default"), string_data={"a": "hidden"}))
    await client.create(ConfigMap(metadata=ObjectMeta(name="c", namespace="default"), data={"a": "b"}))


@pytest.fixture
async def saved(tmp_path: Path) -> Saved:
    """A backup of a platform that does not run."""
    async with served(tmp_path / "data") as client:
        await fill(client)
    return await backup(str(tmp_path / "data"), str(tmp_path / "backup.tar"))


async def test_a_running_platform_is_saved_and_works_as_before_elsewhere(tmp_path: Path) -> None:
    async with served(tmp_path / "data") as client:
        await fill(client)
        found = await backup(str(tmp_path / "data"), str(tmp_path / "backup.tar"))
        await client.delete(Secret, "s", "default")  # it is of the moment when it was made
    assert (found.how, found.store, found.volumes) == ("online", "embedded", 0)
    assert stat.S_IMODE((tmp_path / "backup.tar").stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["backup.tar", "data"]

    made = restore(str(tmp_path / "backup.tar"), str(tmp_path / "below" / "new"))
    assert made.keys > 2
    for path, mode in {"": 0o700, "pki": 0o700, "store": 0o700, "pki/ca.key": 0o600, "pki/ca.crt": 0o644}.items():
        assert stat.S_IMODE((tmp_path / "below" / "new" / path).stat().st_mode) == mode
    assert os.listdir(tmp_path / "below") == ["new"]
    async with served(tmp_path / "below" / "new") as client:
        assert (await client.get(Secret, "s", "default")).data["a"] == b"hidden"
        assert (await client.get(ConfigMap, "c", "default")).data == {"a": "b"}
    same = [(tmp_path / place / "pki" / "ca.crt").read_bytes() for place in ("data", "below/new")]
    assert same[0] == same[1]  # clients and nodes go on with the certificates that they have


async def test_without_a_server_the_files_are_copied(tmp_path: Path, saved: Saved) -> None:
    assert saved.how == "offline"
    (tmp_path / "new").mkdir()  # empty
    made = restore(saved.file, str(tmp_path / "new"))
    assert made.revision > 0
    manifest = read_manifest(saved.file)
    assert (manifest.data_dir, manifest.format, manifest.made) == (str(tmp_path / "data"), FORMAT, made.made)
    assert {"store.db", "pki/ca.key", "pki/sa.key", "pki/encryption.json"} <= set(manifest.entries)


async def test_where_objects_are_in_etcd_keys_are_saved_and_that_is_said(tmp_path: Path) -> None:
    async with served(tmp_path / "data"):
        pass
    (tmp_path / "data" / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "data" / "keys.key").write_text("00" * 32)
    (tmp_path / "config.yaml").write_text("kind: EncryptionConfiguration")
    file = str(tmp_path / "b.tar")
    found = await backup(str(tmp_path / "data"), file, encryption=str(tmp_path / "config.yaml"))
    assert found.store == "external"
    made = restore(file, str(tmp_path / "new"))
    assert (made.store, made.keys) == ("external", 0)
    assert sorted(os.listdir(tmp_path / "new")) == ["encryption-provider-config", "keys.key", "pki"]


async def test_keys_that_are_exchanged_meanwhile_are_taken_with_the_copy_that_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "data"):
        pass
    copy, copies = room._copy_store, []

    async def exchanged(directory: str, to: str) -> Any:
        found = await copy(directory, to)
        copies.append(to)
        if len(copies) == 1:
            Encryption.load(str(tmp_path / "data" / "pki" / "encryption.json")).add_key()
        return found

    monkeypatch.setattr(room, "_copy_store", exchanged)
    await backup(str(tmp_path / "data"), str(tmp_path / "b.tar"))
    assert len(copies) == 2
    with tarfile.open(tmp_path / "b.tar") as tar:
        file = tar.extractfile("pki/encryption.json")
        assert file is not None
        assert file.read() == (tmp_path / "data" / "pki" / "encryption.json").read_bytes()


# What is no whole backup


def refused(file: str, directory: Path, *, damaged: bool = True) -> str:
    with pytest.raises(BackupError) as caught:
        restore(file, str(directory / "new"))
    assert caught.value.is_damaged == damaged
    assert caught.value.hint
    assert not any(name.startswith((".new", "new")) for name in os.listdir(directory))
    return str(caught.value)


def test_a_part_of_one_is_refused_wherever_it_ends(tmp_path: Path, saved: Saved) -> None:
    data = Path(saved.file).read_bytes()
    end = data.rstrip(b"\0").rfind(b"}") + 1
    for cut in (0, 1, 511, 512, 700, len(data) // 3, len(data) // 2, end - 1):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        assert "is no backup that is whole" in refused(str(tmp_path / "cut.tar"), tmp_path)


def test_a_bit_that_is_not_as_written_is_found(tmp_path: Path, saved: Saved) -> None:
    data = Path(saved.file).read_bytes()
    with tarfile.open(saved.file) as tar:
        members = {member.name: member for member in tar}
    for name in ("store.db", "pki/ca.key", "pki/encryption.json", MANIFEST):
        member = members[name]
        for position in {
            member.offset_data,
            member.offset_data + member.size // 2,
            member.offset_data + member.size - 1,
        }:
            damaged = bytearray(data)
            damaged[position] ^= 4
            (tmp_path / "bit.tar").write_bytes(damaged)
            refused(str(tmp_path / "bit.tar"), tmp_path)


def made_by_hand(path: Path, *members: tarfile.TarInfo, manifest: dict[str, Any] | None = None) -> str:
    told = Manifest(format=1, program="1", made="now", data_dir="/d", store="external", entries={})
    plain = msgspec.to_builtins(told) | (manifest or {})
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
        data = msgspec.json.encode(plain)
        last = tarfile.TarInfo(MANIFEST)
        last.size = len(data)
        tar.addfile(last, io.BytesIO(data))
    return str(path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "members",
    [
        [member("../out")],
        [member("/etc/passwd")],
        [member("pki/../../out")],
        [member("volumes//x")],
        [member("other")],
        [member("run/platform.json")],
        [member("pki/ca.key", tarfile.SYMTYPE, "/etc/shadow")],
        [member("store.db", tarfile.LNKTYPE, "pki/ca.key")],
        [member("volumes/a", tarfile.SYMTYPE, "/etc"), member("volumes/a/passwd")],
        [member("volumes", tarfile.SYMTYPE, "/etc"), member("volumes/a")],
        [member("volumes/a", tarfile.LNKTYPE, "pki/ca.key")],
        [member("volumes/a", tarfile.LNKTYPE, "volumes/../pki/ca.key")],
        [member("volumes/a", tarfile.CHRTYPE)],
        [member("volumes/a", tarfile.FIFOTYPE)],
        [member("pki/extra")],  # the manifest knows nothing of it
    ],
)
def test_what_does_not_belong_to_one_is_refused(tmp_path: Path, members: list[tarfile.TarInfo]) -> None:
    refused(made_by_hand(tmp_path / "made.tar", *members), tmp_path)


def test_one_of_a_newer_program_is_refused_with_the_way_out(tmp_path: Path) -> None:
    file = made_by_hand(tmp_path / "made.tar", manifest={"format": FORMAT + 1, "entries": "another shape"})
    assert "has format 2, of a newer program; this one reads up to 1" in refused(file, tmp_path, damaged=False)


def test_a_store_that_is_none_is_refused_though_its_checksum_is_right(tmp_path: Path) -> None:
    info = member("store.db")
    info.size = 4096
    entry = Entry(4096, hashlib.sha256(b"x" * 4096).hexdigest())
    told = {"store": "embedded", "entries": {"store.db": msgspec.to_builtins(entry)}}
    assert "store.db" in refused(made_by_hand(tmp_path / "made.tar", info, manifest=told), tmp_path)


# Places


def content(path: str) -> bytes:
    return Path(path).read_bytes()


async def test_nothing_is_written_over(tmp_path: Path, saved: Saved) -> None:
    before = content(saved.file)
    with pytest.raises(BackupError, match="exists"):
        await backup(str(tmp_path / "data"), saved.file)
    assert content(saved.file) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    for place in ("full", "file", "data"):
        with pytest.raises(BackupError, match="is not empty"):
            restore(saved.file, str(tmp_path / place))
    lock = take_lock(str(tmp_path / "runs"))
    with pytest.raises(BackupError, match="a platform runs here"):
        restore(saved.file, str(tmp_path / "runs"))
    os.close(lock)
    with pytest.raises(BackupError, match="no platform has been here"):
        await backup(str(tmp_path / "full"), str(tmp_path / "b.tar"))


# Volumes


async def test_volumes_are_as_they_were_with_owners_modes_and_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path / "data"):
        pass
    (tmp_path / "data" / "node").mkdir()
    plan = NodePlan(name="n", directory=str(tmp_path / "data" / "node"), kubeconfig="")
    write_plan(str(tmp_path / "data" / "node" / "plan.json"), plan)
    volume = tmp_path / "data" / "node" / "volumes" / "pvc-1"
    (volume / "inner").mkdir(parents=True)
    (volume / "inner" / "file").write_bytes(os.urandom(70_000))
    (volume / "inner" / "file").chmod(0o2664)
    os.link(volume / "inner" / "file", volume / "same")
    (volume / "link").symlink_to("/etc/passwd")
    (volume / ("n\u00e4me" * 30)).write_text("long")
    with socket.socket(socket.AF_UNIX) as sock:
        monkeypatch.chdir(volume)  # the path of a socket is short
        sock.bind("socket")
    os.mkfifo(volume / "fifo")
    if os.geteuid() == 0:
        os.chown(volume / "inner" / "file", 1000, 1001)
    volume.chmod(0o555)

    found = await backup(str(tmp_path / "data"), str(tmp_path / "b.tar"), volumes=True)
    assert (found.volumes, found.changed) == (1, ())
    made = restore(str(tmp_path / "b.tar"), str(tmp_path / "new"))
    again = tmp_path / "new" / "node" / "volumes" / "pvc-1"
    assert made.moved == (str(again.parent), str(volume.parent))
    assert stat.S_IMODE(again.stat().st_mode) == 0o555
    assert sorted(os.listdir(again)) == sorted(set(os.listdir(volume)) - {"socket", "fifo"})
    before, after = (volume / "inner" / "file").stat(), (again / "inner" / "file").stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert (volume / "inner" / "file").read_bytes() == (again / "same").read_bytes()
    assert after.st_ino == (again / "same").stat().st_ino
    assert os.readlink(again / "link") == "/etc/passwd"
    volume.chmod(0o755)
    again.chmod(0o755)


def test_a_file_that_shrinks_while_it_is_read_is_told() -> None:
    whole = room._Exactly(io.BytesIO(b"abc"), 3)
    assert (whole.read(2), whole.read(), whole.is_short) == (b"ab", b"c", False)
    short = room._Exactly(io.BytesIO(b"abc"), 5)
    assert (short.read(), short.is_short) == (b"abc\0\0", True)
    grown = room._Exactly(io.BytesIO(b"abcdef"), 4)
    assert (grown.read(), grown.read(), grown.is_short) == (b"abcd", b"", False)
