"""`pilothouse up`: it says when it is ready, keeps its data to its user, and stops when told."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from pilothouse.client import load_kubeconfig
from pilothouse.platform.state import read_state
from support.service import PILOTHOUSE, pilothouse

pytestmark = pytest.mark.slow


def test_it_stays_until_it_is_told_to_stop(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with subprocess.Popen(
        [*PILOTHOUSE, "up", "--data-dir", str(home), "--listen", "127.0.0.1:0", "--without", "agent"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert (process.returncode, ready.startswith("ready: serving Kubernetes on https://127.0.0.1:")) == (0, True)
    assert f"kubeconfig in {home / 'admin.kubeconfig'}" in ready
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "admin.kubeconfig").stat().st_mode) == 0o600


def test_controllers_are_part_of_it_and_come_again_after_a_kill(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with subprocess.Popen(
        [*PILOTHOUSE, "up", "--data-dir", str(home), "--listen", "127.0.0.1:0", "--without", "agent"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        state = read_state(str(home))
        assert state is not None
        os.kill(state.parts["controllers"].pid, signal.SIGKILL)
        assert process.stderr is not None
        told = next(line for line in process.stderr if "ready after" not in line)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert (process.returncode, sorted(state.parts)) == (0, ["apiserver", "controllers", "gateway"])
    assert (state.parts["gateway"].state, state.parts["gateway"].pid) == ("idle", 0)
    assert told == "controllers ended with -9 and is started again\n"


def test_a_range_of_pods_too_large_for_nodes_is_refused(tmp_path: Path) -> None:
    done = pilothouse("up", "--data-dir", str(tmp_path / "home"), "--cluster-cidr", "10.0.0.0/7", check=False)
    assert done.returncode == 2
    done = pilothouse("up", "--data-dir", str(tmp_path / "home"), "--cluster-cidr", "16.0.0.0/7", check=False)
    assert (done.returncode, "--cluster-cidr: 16.0.0.0/7: want /8 or a smaller range" in done.stderr) == (2, True)


def test_parts_can_be_left_out_by_their_names(tmp_path: Path) -> None:
    done = pilothouse("up", "--data-dir", str(tmp_path), "--without", "sails", check=False)
    assert (done.returncode, "--without sails: there is no such part" in done.stderr) == (2, True)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        done = pilothouse("up", "--data-dir", str(home), "--listen", "127.0.0.1:0", check=False)
        assert (done.returncode, str(home) in done.stderr.splitlines()[0]) == (2, True)
        assert "--debug" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--listen", "nowhere", "want HOST:PORT"),
        ("--service-node-port-range", "9-1", "want FIRST-LAST"),
        ("--service-cluster-ip-range", "10.0.0.0/99", "does not appear to be an IPv4 or IPv6 network"),
        ("--oidc-client-id", "x", "belong together"),
        ("--audit-log-path", "x", "belong together"),
        ("--enable-admission-plugins", "Nope", "not known; there are NamespaceLifecycle"),
        ("--token-auth-file", "/no/such/file", "/no/such/file"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_wanted(tmp_path: Path, option: str, value: str, told: str) -> None:
    done = pilothouse("up", "--data-dir", str(tmp_path / "d"), "--listen", "127.0.0.1:0", option, value, check=False)
    assert done.returncode in {1, 2}
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_options_of_a_file_and_a_kubeconfig_among_others(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kube" / "config"
    (tmp_path / "up.yaml").write_text(
        f"data-dir: {tmp_path / 'home'}\nlisten: 127.0.0.1:0\nwithout: [agent, controllers, scheduler]\n"
        f"kubeconfig: {kubeconfig}\ntls-san: [pilot.example]\nlog-level: error\n",
        encoding="utf-8",
    )
    command = [*PILOTHOUSE, "up", "--config", str(tmp_path / "up.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, table = process.stdout.readline().split()[4].rstrip(","), process.stdout.readline()
        second = pilothouse("up", "--config", str(tmp_path / "up.yaml"), check=False)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert load_kubeconfig(kubeconfig, context="pilothouse").server == url
    assert table == f"  API         {url}\n"
    certificate = x509.load_pem_x509_certificate((tmp_path / "home" / "pki" / "apiserver.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "pilot.example" in names.get_values_for_type(x509.DNSName)
    assert second.returncode == 5
    assert f"{tmp_path / 'home'}: a platform runs here already (process {process.pid})" in second.stderr


def test_a_unit_says_how_it_is_started_from_anywhere(tmp_path: Path) -> None:
    done = pilothouse("up", "--data-dir", "here", "--node-label", "a=b", "--without", "dns", "--print-unit")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ExecStart=")]
    here = Path("here").absolute()
    assert line.endswith(f" -m pilothouse up --data-dir {here} --without dns --node-label a=b")
    assert not here.exists()
    done = pilothouse("up", "--print-unit", "--role", "agent", "--join", "https://x", "--token", "T", check=False)
    assert (done.returncode, "name that with --config" in done.stderr, "T" in done.stdout) == (2, True, False)
