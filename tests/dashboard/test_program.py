"""The dashboard as a program: its certificate, its command, and as a part of `pilothouse up`."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from pilothouse.dashboard.cli import dashboard
from pilothouse.dashboard.program import certificate_in
from pilothouse.foundation import tls
from pilothouse.platform.state import read_state
from support.service import PILOTHOUSE


def hosts_of(directory: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate((directory / "dashboard.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(each.value) for each in names}


def test_a_certificate_is_made_once_and_anew_for_another_host(tmp_path: Path) -> None:
    certificate_in(tmp_path / "d", "127.0.0.1")
    first = (tmp_path / "d" / "dashboard.crt").read_bytes()
    certificate_in(tmp_path / "d", "0.0.0.0")
    assert (tmp_path / "d" / "dashboard.crt").read_bytes() == first
    assert {"localhost", "127.0.0.1"} <= hosts_of(tmp_path / "d")
    certificate_in(tmp_path / "d", "127.0.0.9")
    assert "127.0.0.9" in hosts_of(tmp_path / "d")
    assert (tmp_path / "d" / "dashboard.key").stat().st_mode & 0o777 == 0o600


def test_the_clusters_authority_signs_where_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    ca = tls.make_ca("cluster")
    tls.write(ca, str(tmp_path / "pki" / "ca.crt"), str(tmp_path / "pki" / "ca.key"))
    certificate_in(tmp_path / "d", "127.0.0.1", tmp_path / "pki")
    assert (tmp_path / "d" / "dashboard.crt").read_bytes().endswith(ca.certificate)
    assert not (tmp_path / "d" / "dashboard-ca.key").exists()


def test_wrong_options_are_explained(tmp_path: Path) -> None:
    lonely = CliRunner().invoke(dashboard, ["--certificate", "x.pem"])
    assert (lonely.exit_code, "both or neither" in lonely.output) == (2, True)
    nowhere = CliRunner().invoke(dashboard, ["--data-dir", str(tmp_path)])
    assert (nowhere.exit_code, "admin.kubeconfig" in nowhere.output) == (2, True)


@pytest.mark.slow
def test_up_serves_it_and_the_admin_logs_in(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [*PILOTHOUSE, "up", "--data-dir", str(home), "--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0"]
    without = "agent,controllers,scheduler,load-balancers,gateway,delivery,dns"
    with subprocess.Popen(
        [*command, "--without", without], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        state = read_state(str(home))
        assert state is not None
        told = state.parts["dashboard"].told["dashboard"]
        assert state.url != told
        address = told.removeprefix("https://")
        context = ssl.create_default_context(cafile=str(home / "pki" / "ca.crt"))
        connection = http.client.HTTPSConnection(address, context=context, timeout=20)
        body = json.dumps({"credentials": (home / "admin.kubeconfig").read_text(encoding="utf-8")})
        connection.request("POST", "/api/login", body, {"Origin": told})
        answer = connection.getresponse()
        found = json.loads(answer.read())
        connection.close()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert (process.returncode, answer.status, found["namespace"]) == (0, 200, "*")
