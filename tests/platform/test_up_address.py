"""`pilothouse up` at a port that it chooses: parts find the server when it is killed, and at the next start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.client import Client
from pilothouse.kinds.structs import ConfigMap, ObjectMeta
from pilothouse.platform.state import read_state
from support.platformkit import eventually
from support.service import PILOTHOUSE

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def up(home: Path) -> Iterator[str]:
    """Run a platform without a node; give its address when all parts are ready."""
    command = [*PILOTHOUSE, "up", "--data-dir", str(home), "--listen", "127.0.0.1:0", "--without", "agent"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield next(word for word in process.stdout.readline().split() if word.startswith("https://")).rstrip(",")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def part(home: Path, name: str) -> tuple[str, int]:
    """Return a part's state and process."""
    state = read_state(str(home))
    assert state is not None
    return state.parts[name].state, state.parts[name].pid


async def test_a_server_that_was_killed_is_found_where_it_was(tmp_path: Path) -> None:
    with up(tmp_path / "home") as url:
        _, pid = part(tmp_path / "home", "apiserver")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: part(tmp_path / "home", "apiserver")[1] not in {0, pid})
        eventually(lambda: part(tmp_path / "home", "apiserver")[0] == "ready")
        state = read_state(str(tmp_path / "home"))
        assert state is not None
        assert state.parts["apiserver"].told["url"] == url
        async with Client.from_kubeconfig(str(tmp_path / "home" / "admin.kubeconfig")) as client:
            await client.create(ConfigMap(metadata=ObjectMeta(name="after")))


def test_parts_find_the_server_at_the_next_start_though_its_address_is_another(tmp_path: Path) -> None:
    with up(tmp_path / "home"):
        pass
    old = (tmp_path / "home" / "controllers.kubeconfig").read_text()
    with up(tmp_path / "home") as url:
        text = (tmp_path / "home" / "controllers.kubeconfig").read_text()
        assert url in text
        assert text != old
        assert part(tmp_path / "home", "controllers")[0] == "ready"
