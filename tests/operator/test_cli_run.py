"""`pilothouse operator run`: an operator of a module runs against a server, and what is wrong is said."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pilothouse.cli import main
from pilothouse.kinds.structs import Resource
from pilothouse.operator.cli_run import operator
from pilothouse.operator.crds import definition
from pilothouse.testing import BlockingPlane

PROGRAM = '''
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Resource
from pilothouse.operator import controller

class Runner(Resource, group="run.example.com", version="v1", plural="runners"):
    """A kind."""

async def reconcile(obj, context):
    await context.apply(ConfigMap(metadata=ObjectMeta(name=obj.metadata.name), data={"ran": "yes"}), obj)

def build(manager):
    manager.scheme.register(Runner)
    controller(manager).for_(Runner).owns(ConfigMap).build(reconcile)

def nothing(manager):
    pass
'''


class Runner(Resource, group="run.example.com", version="v1", plural="runners"):
    """The same kind, to make its definition of."""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "runner_operator.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.slow
def test_it_runs_until_it_is_told_to_stop(control_plane: BlockingPlane, program: Path) -> None:
    control_plane.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(Runner))
    command = [
        sys.executable,
        "-m",
        "pilothouse",
        "operator",
        "run",
        str(program),
        "--kubeconfig",
        control_plane.kubeconfig,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            control_plane.wait_for(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/runners.run.example.com",
                lambda found: "Established" in str(found.get("status")),
            )
            runner = {"apiVersion": "run.example.com/v1", "kind": "Runner", "metadata": {"name": "one"}}
            control_plane.call("POST", "/apis/run.example.com/v1/namespaces/default/runners", runner)
            made = control_plane.wait_for("/api/v1/namespaces/default/configmaps/one", timeout=30)
            assert made["data"] == {"ran": "yes"}
            running.send_signal(signal.SIGTERM)
            _, errors = running.communicate(timeout=30)
        finally:
            running.kill()
    assert running.returncode == 0, errors


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["{program}:missing"], "it has no function missing", 2),
        (["{program}", "--kubeconfig", "/nowhere/config"], "/nowhere/config", 2),
        (["no_such_module_at_all"], "no_such_module_at_all", None),
    ],
)
def test_what_is_wrong_is_said(program: Path, arguments: list[str], said: str, code: int | None) -> None:
    done = CliRunner().invoke(operator, ["run", *(each.replace("{program}", str(program)) for each in arguments)])
    assert done.exit_code != 0
    assert code is None or done.exit_code == code
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_function_that_builds_nothing_is_refused(control_plane: BlockingPlane, program: Path) -> None:
    arguments = ["run", f"{program}:nothing", "--kubeconfig", control_plane.kubeconfig]
    done = CliRunner().invoke(operator, arguments)
    assert "it built no controllers" in done.output


def test_it_is_a_command() -> None:
    assert callable(main)
    assert "Run the operator" in CliRunner().invoke(operator, ["run", "--help"]).output
