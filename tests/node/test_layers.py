"""Layers are unpacked as their archives say, and never outside of their directory."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.node.images.layers import LayerError, flatten, unpack
from support.imagekit import Entry, layer

ROOT = os.geteuid() == 0


def unpacked(directory: Path, name: str, *entries: Entry, below: tuple[str, ...] = ()) -> Path:
    packed = directory / f"{name}.tar.gz"
    packed.write_bytes(layer(*entries))
    unpack(str(packed), str(directory / name), below, owners=ROOT, limit=1 << 30)
    return directory / name


def test_files_links_and_modes(tmp_path: Path) -> None:
    made = unpacked(
        tmp_path,
        "l",
        ("bin", {"dir": True, "mode": 0o555}),
        ("bin/tool", {"data": b"x", "mode": 0o4755}),
        ("bin/same", {"hard": "bin/tool"}),
        ("lib", {"link": "/usr/lib"}),
        ("implied/deep/file", {"data": b"y"}),
    )
    assert stat.S_IMODE((made / "bin").stat().st_mode) == 0o555
    assert stat.S_IMODE((made / "bin/tool").stat().st_mode) == 0o4755
    assert (made / "bin/tool").stat().st_ino == (made / "bin/same").stat().st_ino
    assert os.readlink(made / "lib") == "/usr/lib"
    assert (made / "implied/deep/file").read_bytes() == b"y"


@pytest.mark.parametrize("name", ["../out", "/../../out", "a/../../../out", "link/out", "loop/x", "up/out"])
def test_nothing_leads_outside(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    entries: tuple[Entry, ...] = (
        ("link", {"link": str(outside)}),
        ("up", {"link": "../../outside"}),
        ("loop", {"link": "loop"}),
        (name, {"data": b"x"}),
    )
    if name.startswith("loop"):
        with pytest.raises(LayerError, match="too many links"):
            unpacked(tmp_path, "l", *entries)
    else:
        unpacked(tmp_path, "l", *entries)
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "out").exists()
    assert not (tmp_path.parent / "out").exists()


def test_hard_links_do_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    with pytest.raises(LayerError, match="which is not there"):
        unpacked(tmp_path, "l", ("x", {"hard": "../secret"}))
    with pytest.raises(LayerError, match="which is not there"):
        unpacked(tmp_path, "m", ("link", {"link": str(tmp_path)}), ("x", {"hard": "link/secret"}))


def test_devices_are_left_out(tmp_path: Path) -> None:
    made = unpacked(tmp_path, "l", ("dev/sda", {"type": tarfile.BLKTYPE}), ("dev/null", {"type": tarfile.CHRTYPE}))
    assert list((made / "dev").iterdir()) == []


def test_whiteouts_hide_what_is_below(tmp_path: Path) -> None:
    base = unpacked(
        tmp_path,
        "a",
        ("gone", {"data": b"1"}),
        ("kept", {"data": b"2"}),
        ("d/old", {"data": b"3"}),
        ("e/x", {"data": b"4"}),
        ("f/x", {"data": b"4"}),
    )
    top = unpacked(
        tmp_path,
        "b",
        (".wh.gone", {}),
        ("d/.wh..wh..opq", {}),
        ("d/new", {"data": b"5"}),
        (".wh.e", {}),
        ("e/y", {"data": b"6"}),
        ("f/y", {"data": b"7"}),
        (".wh.f", {}),
        below=(str(base),),
    )
    assert stat.S_ISCHR((top / "gone").lstat().st_mode)
    whole = tmp_path / "whole"
    flatten([str(top), str(base)], str(whole), owners=ROOT)
    files = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    assert files == ["d/new", "e/y", "f/y", "kept"]
    with pytest.raises(LayerError, match="not a whiteout"):
        unpacked(tmp_path, "c", (".wh...", {}))


def test_paths_follow_the_links_of_lower_layers(tmp_path: Path) -> None:
    base = unpacked(tmp_path, "a", ("usr/bin/sh", {"data": b"1"}), ("bin", {"link": "usr/bin"}))
    top = unpacked(tmp_path, "b", ("bin/tool", {"data": b"2"}), below=(str(base),))
    assert (top / "usr/bin/tool").read_bytes() == b"2"
    assert not (top / "bin").exists()


def test_limits_and_damage_are_told(tmp_path: Path) -> None:
    packed = tmp_path / "big.tar.gz"
    packed.write_bytes(layer(("big", {"data": bytes(1 << 20)})))
    with pytest.raises(LayerError, match="more than 1000 bytes"):
        unpack(str(packed), str(tmp_path / "big"), (), owners=ROOT, limit=1000)
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(LayerError, match="not a readable archive"):
        unpack(str(packed), str(tmp_path / "cut"), (), owners=ROOT, limit=1 << 30)
    packed.write_bytes(b"\x28\xb5\x2f\xfd....")
    with pytest.raises(LayerError, match="zstd"):
        unpack(str(packed), str(tmp_path / "zstd"), (), owners=ROOT, limit=1 << 30)


NAMES = st.lists(st.sampled_from(["a", "b", "..", ".", "l", ".wh.a"]), min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(
    st.tuples(
        NAMES,
        st.one_of(
            st.just({"data": b"x"}),
            st.just({"dir": True}),
            st.builds(lambda led: {"link": led}, st.one_of(NAMES, NAMES.map("/".__add__))),
            st.builds(lambda led: {"hard": led}, NAMES),
        ),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=ENTRIES)
def test_whatever_an_archive_says_it_stays_inside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]
) -> None:
    directory = tmp_path_factory.mktemp("x")
    (directory / "a").mkdir()
    (directory / "a" / "kept").write_text("k")
    packed = directory / "p.tar.gz"
    packed.write_bytes(layer(*entries))
    inner = directory / "in" / "layer"
    inner.parent.mkdir()
    with contextlib.suppress(LayerError, OSError):
        unpack(str(packed), str(inner), (), owners=ROOT, limit=1 << 20)
    assert sorted(os.listdir(directory)) == ["a", "in", "p.tar.gz"]
    assert os.listdir(directory / "in") == ["layer"]
    assert os.listdir(directory / "a") == ["kept"]


def test_an_empty_archive_is_an_empty_layer(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w"):
        pass
    (tmp_path / "e.tar").write_bytes(buffer.getvalue())
    digest, _ = unpack(str(tmp_path / "e.tar"), str(tmp_path / "e"), (), owners=ROOT, limit=1 << 20)
    assert digest.startswith("sha256:")
    assert os.listdir(tmp_path / "e") == []
