from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest

from pilothouse.cli import checks, main, podchecks
from pilothouse.cli.doctor import _ADVICE, Finding, diagnose
from pilothouse.node.process.machine import Machine

MOUNTS = [
    ("/sys/fs/cgroup", "cgroup2", "rw", True),
    ("/v1/cpu", "cgroup", "rw,cpu,cpuacct", True),
    ("/v1/memory", "cgroup", "rw,memory", False),
    ("/trace", "tracefs", "rw", True),
]


def use_mounts(monkeypatch: pytest.MonkeyPatch, mounts: list[tuple[str, str, str, bool]]) -> None:
    monkeypatch.setattr(checks, "_mounts", lambda: mounts)


def test_this_machine_is_described_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--dir", str(tmp_path), "-o", "json"])
    assert caught.value.code == 0
    findings = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in findings] == list(_ADVICE)
    for row in findings:
        assert row["state"] in {"ok", "limited", "missing"}
        assert row["detail"]
        assert bool(row["cost"]) == bool(row["remedy"]) == (row["state"] != "ok")
    assert os.listdir(tmp_path) == []
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_table_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checks, "root", lambda: ("missing", "user id 1000"))
    with pytest.raises(SystemExit):
        main(["doctor"])
    shown = capsys.readouterr().out
    assert "user id 1000" in shown
    assert f"root (missing)\n  costs:  {_ADVICE['root'][0]}\n" in shown


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode() -> checks.Answer:
        raise PermissionError(13, "Permission denied", "/proc/self/mountinfo")

    monkeypatch.setattr(checks, "ebpf", explode)
    found = {finding.check: finding for finding in diagnose("/no/such/directory")}
    assert found["eBPF"].state == "missing"
    assert "could not be found out" in found["eBPF"].detail
    assert "No such file" in found["disk"].detail
    assert isinstance(found["root"], Finding)


def test_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert checks.root() == ("missing", "user id 1000")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert checks.root()[0] == "ok"


def test_cgroup_v2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_mounts(monkeypatch, [])
    assert checks.cgroup_v2() == ("missing", "not mounted")
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    use_mounts(monkeypatch, [(str(tmp_path), "cgroup2", "rw", True)])
    assert checks.cgroup_v2()[0] == "ok"
    use_mounts(monkeypatch, [(str(tmp_path), "cgroup2", "rw", False)])
    assert checks.cgroup_v2()[0] == "limited"
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    use_mounts(monkeypatch, [(str(tmp_path), "cgroup2", "rw", True)])
    assert checks.cgroup_v2() == ("limited", f"{tmp_path}: memory; without cpu, pids")


def test_cgroup_v1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: True)
    use_mounts(monkeypatch, MOUNTS)
    assert checks.cgroup_v1() == ("limited", "writable: cpu; mounted: cpu, memory")
    use_mounts(monkeypatch, [*MOUNTS, ("/m", "cgroup", "rw,memory", True), ("/p", "cgroup", "rw,pids", True)])
    assert checks.cgroup_v1()[0] == "ok"
    use_mounts(monkeypatch, MOUNTS[:1])
    assert checks.cgroup_v1()[0] == "missing"


@pytest.mark.parametrize("check", [checks.network_namespaces, checks.user_namespaces, checks.ebpf, checks.io_uring])
def test_what_the_kernel_answers(check: checks.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mounts(monkeypatch, MOUNTS)
    monkeypatch.setattr(checks, "_in_child", lambda call: 0)
    assert check()[0] == "ok"
    monkeypatch.setattr(checks, "_in_child", lambda call: errno.EPERM)
    state, detail = check()
    assert state == "missing"
    assert os.strerror(errno.EPERM) in detail


def test_ebpf_without_tracefs_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    use_mounts(monkeypatch, MOUNTS[:1])
    monkeypatch.setattr(checks, "_in_child", lambda call: 0)
    assert checks.ebpf()[0] == "limited"


def test_a_null_pointer_shows_that_io_uring_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_in_child", lambda call: errno.EFAULT)
    assert checks.io_uring()[0] == "ok"


def test_container_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = str(tmp_path / "c.sock")
    monkeypatch.setattr(checks, "_SOCKETS", (("containerd", path),))
    assert checks.container_runtime()[0] == "missing"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        assert checks.container_runtime() == ("limited", f"containerd at {path}: Connection refused")
        server.listen()
        assert checks.container_runtime() == ("ok", f"containerd at {path}")


def test_what_pods_can_have_is_what_the_runtime_says(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = ("no nft program: pods reach each other", "no overlay file system: copies")
    made = Machine(mode="userns", cgroups=0, overlay=False, seccomp=True, missing=lacking)
    monkeypatch.setattr("pilothouse.node.process.machine.capabilities_of_this_machine", lambda: made)
    found = {finding.check: finding for finding in diagnose()}["pods"]
    assert found.state == "limited"
    assert found.detail == "own namespaces; this machine's network, and one user; no limits; filter of system calls"
    assert found.cost == "; ".join(lacking)
    monkeypatch.setattr(
        "pilothouse.node.process.machine.capabilities_of_this_machine",
        lambda: Machine(mode="root", cgroups=2, overlay=True, seccomp=True),
    )
    found = {finding.check: finding for finding in diagnose()}["pods"]
    assert (found.state, found.cost) == ("ok", "")


def test_services_want_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.node.services.nft.why_not", lambda: "only root may")
    assert podchecks.services() == ("limited", "only root may")
    monkeypatch.setattr("pilothouse.node.services.nft.why_not", lambda: "")
    assert podchecks.services()[0] == "ok"


def test_the_port_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        monkeypatch.setattr(podchecks, "_DNS_PORT", port)
        assert podchecks.dns_port()[0] == "ok"
        monkeypatch.setattr(podchecks, "_DNS_ADDRESS", "127.0.0.1")
        assert podchecks.dns_port() == ("limited", f"port {port} of 127.0.0.1 is taken")


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_SERVER_LIBRARIES", ("json", "no_such_package.part", "no_such_module"))
    assert checks.libraries() == ("limited", "pilothouse[server] lacks no_such_package.part, no_such_module")


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--dir", str(tmp_path / "none")])
    assert (caught.value.code, "does not exist" in capsys.readouterr().err) == (2, True)
