"""A server that is told to stop while it starts ends at once, whatever it waits for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from pilothouse.foundation.lifeline import VARIABLE
from support.service import PILOTHOUSE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("how", ["signal", "supervisor"])
def test_a_start_that_waits_for_its_store_is_given_up(tmp_path: Path, how: str) -> None:
    reading, lifeline = os.pipe()
    said, writing = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        store = f"etcd://127.0.0.1:{silent.getsockname()[1]}"
        command = [*PILOTHOUSE, "apiserver", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--store", store]
        environment = os.environ | {VARIABLE: f"{reading},{writing}"}
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, pass_fds=(reading, writing)
        ) as process:
            connection, _ = silent.accept()  # it is asked, and does not answer
            if how == "signal":
                process.send_signal(signal.SIGTERM)
            else:
                os.close(lifeline)
            _, errors = process.communicate(timeout=30)
            connection.close()
    for descriptor in (reading, writing, said, *([lifeline] if how == "signal" else [])):
        os.close(descriptor)
    assert (process.returncode, errors) == (0, "")
