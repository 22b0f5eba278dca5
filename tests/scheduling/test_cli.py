"""`pilothouse scheduler` as a user runs it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pilothouse.client import Client
from pilothouse.foundation.terminal import CommandError, ExitCode
from pilothouse.kinds.structs import Node, Pod, from_dict
from pilothouse.scheduling.cli import scheduler
from pilothouse.testing import ControlPlane


def test_a_file_that_is_wrong_is_told_with_its_field(tmp_path: Path) -> None:
    path = tmp_path / "scheduler.yaml"
    path.write_text("apiVersion: kubescheduler.config.k8s.io/v1\nkind: Other\n", encoding="utf-8")
    done = CliRunner().invoke(scheduler, ["--config", str(path)], standalone_mode=False)
    assert isinstance(done.exception, CommandError)
    assert "kind: is 'Other'" in str(done.exception)
    assert done.exception.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("options", [["--config", "missing.yaml"], ["--kubeconfig", "missing"]])
def test_a_file_that_is_not_there_is_told(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(scheduler, options, standalone_mode=False)
    assert isinstance(done.exception, CommandError)
    assert "missing" in str(done.exception)
    assert done.exception.exit_code == ExitCode.USAGE


@pytest.mark.slow
async def test_it_binds_pods_until_it_is_told_to_stop() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        program = "from pilothouse.cli import main; main()"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, "scheduler", "--kubeconfig", plane.kubeconfig, "--log-level", "error"
        )
        try:
            status = {"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}}
            await client.create(from_dict({"metadata": {"name": "n1"}}, Node))
            await client.patch(Node, "n1", status, subresource="status")
            await client.patch(Node, "n1", {"spec": {"taints": None}})
            container = {"name": "main", "image": "app"}
            await client.create(from_dict({"metadata": {"name": "web"}, "spec": {"containers": [container]}}, Pod))
            async with asyncio.timeout(30):
                while not (await client.get(Pod, "web")).spec.node_name:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        finally:
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
