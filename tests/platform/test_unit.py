"""The systemd unit: systemd itself finds nothing wrong with it, and stopping it leaves pods alone."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.platform.unit import unit_text

_COMMAND = [sys.executable, "-m", "pilothouse", "up", "--data-dir", '/srv/my "data" 100%$x', "--node-label=a=b"]


def parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as the module's documentation has it
    parser.read_string(text)
    return parser


@pytest.mark.parametrize("is_root", [True, False])
def test_pods_run_on_when_the_unit_stops(is_root: bool) -> None:
    unit = parsed(unit_text(_COMMAND, is_root=is_root))
    service = unit["Service"]
    assert (service["Type"], service["KillMode"], service["Delegate"], service["Restart"]) == (
        "notify",
        "process",
        "yes",
        "always",
    )
    assert int(service["TimeoutStopSec"]) > 5
    assert int(service["LimitNOFILE"]) > 0
    assert unit["Install"]["WantedBy"] == ("multi-user.target" if is_root else "default.target")
    assert service["ExecStart"].endswith(r'up --data-dir "/srv/my \"data\" 100%%$$x" --node-label=a=b')


def complaints(unit: Path) -> list[str]:
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return [line for line in done.stderr.splitlines() if unit.name in line]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze not found: install systemd")
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    unit = tmp_path / "pilothouse.service"
    unit.write_text(unit_text(_COMMAND, is_root=True), encoding="utf-8")
    assert not complaints(unit)
    unit.write_text(unit.read_text().replace("KillMode=process", "KillMode=proces"), encoding="utf-8")
    assert any("kill mode" in line for line in complaints(unit))  # so that we know that it looks
