"""Conversions of a kubelet, and control groups of version 1 and 2 in a directory that stands for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.rights import SYS_ADMIN
from pilothouse.node.cgroupmath import (
    Need,
    container_resources,
    milli_cpu_to_quota,
    milli_cpu_to_shares,
    oom_score_adj,
    pod_cgroup,
    pod_resources,
    qos_class,
    shares_to_weight,
    shares_to_weight_before,
)
from pilothouse.node.config import Resources
from pilothouse.node.process import cgroups
from pilothouse.node.process.cgroups import ControlGroups, detect


@pytest.mark.parametrize(
    ("milli", "shares", "quota"),
    [
        (0, 2, 0),
        (1, 2, 1000),
        (2, 2, 1000),
        (10, 10, 1000),
        (100, 102, 10_000),
        (1000, 1024, 100_000),
        (10**6, 262_144, 10**8),
    ],
)
def test_cpu(milli: int, shares: int, quota: int) -> None:
    assert (milli_cpu_to_shares(milli), milli_cpu_to_quota(milli)) == (shares, quota)


def test_weights() -> None:
    assert (shares_to_weight(1024), shares_to_weight_before(1024)) == (100, 39)
    assert [shares_to_weight(shares) for shares in (0, 2, 262_144)] == [0, 1, 10_000]
    assert [shares_to_weight_before(shares) for shares in (0, 2, 262_144)] == [0, 1, 10_000]
    assert shares_to_weight(102) == 17


@given(st.integers(2, 262_144), st.integers(2, 262_144))
def test_more_shares_never_weigh_less(one: int, two: int) -> None:
    low, high = sorted((one, two))
    assert 1 <= shares_to_weight(low) <= shares_to_weight(high) <= 10_000


def test_classes_and_their_groups() -> None:
    sure = Need(cpu_limit=100, memory_limit=1 << 20)
    assert qos_class([sure]) == "Guaranteed"
    assert qos_class([sure, Need()]) == "Burstable"
    assert qos_class([Need(cpu_request=50, cpu_limit=100, memory_limit=1)]) == "Burstable"
    assert qos_class([Need(), Need()]) == "BestEffort"
    assert pod_cgroup("1", "Guaranteed") == "/kubepods/pod1"
    assert pod_cgroup("1", "Burstable") == "/kubepods/burstable/pod1"
    assert pod_cgroup("1", "BestEffort") == "/kubepods/besteffort/pod1"


def test_scores() -> None:
    assert oom_score_adj("Guaranteed", 0, 100) == -997
    assert oom_score_adj("Burstable", 5, 100, critical=True) == -997
    assert oom_score_adj("BestEffort", 0, 100) == 1000
    assert [oom_score_adj("Burstable", request, 1000) for request in (0, 1, 500, 999, 1000)] == [999, 999, 500, 3, 3]


def test_limits_of_containers_and_pods() -> None:
    needs = [Need(cpu_request=100, memory_limit=10), Need(cpu_limit=500, memory_limit=20)]
    one = container_resources(needs[1], 7)
    assert (one.cpu_shares, one.cpu_quota, one.memory_limit, one.oom_score_adj) == (512, 50_000, 20, 7)
    pod = pod_resources(needs)
    assert (pod.cpu_shares, pod.cpu_quota, pod.memory_limit) == (milli_cpu_to_shares(600), 0, 30)


def fake(directory: Path, *names: str) -> None:
    """Put empty files where a kernel would."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text("")


def test_version_2_enables_controllers_on_the_way_down(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "x", tmp_path / "x" / "pod"):
        fake(directory, "cgroup.subtree_control")
        (directory / "cgroup.controllers").write_text("cpu memory pids io\n")
    leaf = tmp_path / "x" / "pod" / "c"
    fake(leaf, "cpu.weight", "cpu.max", "memory.max", "pids.max", "cgroup.procs")
    groups = ControlGroups({"": str(tmp_path)}, "x")
    groups.create("/pod/c", Resources(cpu_shares=1024, cpu_quota=50_000, memory_limit=1 << 20, pids_limit=9))
    assert (leaf / "cpu.weight").read_text() == "100"
    assert (leaf / "cpu.max").read_text() == "50000 100000"
    assert (leaf / "memory.max").read_text() == "1048576"
    assert (leaf / "pids.max").read_text() == "9"
    assert (tmp_path / "x" / "pod" / "cgroup.subtree_control").read_text().startswith("+pids")
    assert groups.version == 2
    assert groups.procs_files("/pod/c") == (f"{leaf}/cgroup.procs",)
    assert groups.oom_file("/pod/c") == f"{leaf}/memory.events"
    (leaf / "memory.stat").write_text("anon 5\ninactive_file 30\n")
    (leaf / "memory.current").write_text("100\n")
    (leaf / "cpu.stat").write_text("usage_usec 12\nuser_usec 3\n")
    (leaf / "pids.current").write_text("4\n")
    (leaf / "memory.events").write_text("oom 2\noom_kill 1\n")
    assert groups.usage("/pod/c") == (12_000, 100, 70, 5, 4, 1)


def test_controllers_that_do_not_reach_the_groups_are_told(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "cgroup.controllers").write_text("pids\n")
    groups = ControlGroups({"": str(tmp_path)})
    groups.create("p", Resources(cpu_shares=4, memory_limit=1 << 20))
    assert groups.unavailable == {"cpu", "memory"}
    with pytest.raises(FileNotFoundError, match=r"p/pids\.max"):
        groups.limit("p", Resources(pids_limit=4))


def test_a_limit_that_cannot_be_set_names_its_file(tmp_path: Path) -> None:
    groups = ControlGroups({"cpu": str(tmp_path)})
    with pytest.raises(FileNotFoundError, match=r"p/cpu\.shares"):
        groups.create("p", Resources(cpu_shares=4))


def test_what_is_mounted_is_found(tmp_path: Path) -> None:
    unified, memory = tmp_path / "unified", tmp_path / "memory"
    fake(unified, "cgroup.controllers")
    fake(memory)
    info = tmp_path / "mountinfo"
    info.write_text(
        f"1 2 0:1 / {memory} rw - cgroup cgroup rw,memory\n2 2 0:1 / {unified} rw shared:1 - cgroup2 cgroup2 rw\n"
        "3 2 0:1 / /nowhere rw - cgroup cgroup rw,cpu\n"
    )
    assert detect(mountinfo=str(info)).mounts == {"memory": str(memory)}
    (unified / "cgroup.controllers").write_text("cpu io memory pids\n")
    assert detect(mountinfo=str(info)).mounts == {"": str(unified)}
    info.write_text("")
    assert detect(mountinfo=str(info)).version == 0


@pytest.mark.parametrize(("rights", "found"), [(1 << SYS_ADMIN, {"memory", "devices"}), (0, {"memory"})])
def test_devices_are_guarded_only_with_the_right_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rights: int, found: set[str]
) -> None:
    fake(tmp_path / "both")
    info = tmp_path / "mountinfo"
    info.write_text(f"1 2 0:1 / {tmp_path / 'both'} rw - cgroup cgroup rw,memory,devices\n")
    monkeypatch.setattr(cgroups, "effective", lambda: rights)
    assert detect(mountinfo=str(info)).mounts.keys() == found


def test_a_group_is_made_although_its_parent_is_found_empty_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = ControlGroups({"cpu": str(tmp_path)})
    make = os.mkdir
    removed: list[str] = []

    def mkdir(path: str, mode: int = 0o777) -> None:
        if path.endswith("/pod") and not removed:
            removed.append(path)
            groups.remove_empty("kubepods")
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    groups.create("kubepods/pod")
    assert removed
    assert (tmp_path / "kubepods" / "pod").is_dir()
    groups.remove_empty("kubepods")
    assert (tmp_path / "kubepods" / "pod").is_dir()
