from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.kinds.status import NotFound
from pilothouse.testing import BlockingPlane, ControlPlane


def pytest_in(directory: Path, text: str, *options: str) -> str:
    """Run pytest on a file of a project of its own, warnings as errors, and return what it prints."""
    (directory / "test_it.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-rA"]
    plugin = [] if _registered() else ["-p", "pilothouse.testing.pytest_plugin"]
    if "no:asyncio" not in options:
        plugin += ["-o", "asyncio_default_fixture_loop_scope=function"]  # or pytest-asyncio warns
    done = subprocess.run(
        [*command, *plugin, *options, "."], cwd=directory, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


def _registered() -> bool:
    from importlib.metadata import entry_points

    return any(each.value == "pilothouse.testing.pytest_plugin" for each in entry_points(group="pytest11"))


def test_a_test_gets_a_plane_of_its_own(control_plane: BlockingPlane) -> None:
    assert control_plane.call("GET", "/readyz") == "ok"


def test_a_namespace_is_there_with_its_account(control_plane: BlockingPlane, namespace: str) -> None:
    found = control_plane.call("GET", f"/api/v1/namespaces/{namespace}")
    assert found["status"]["phase"] == "Active"
    assert control_plane.call("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")


def test_the_kubeconfig_is_that_of_the_plane(control_plane: BlockingPlane, kubeconfig: str) -> None:
    assert kubeconfig == control_plane.kubeconfig
    assert control_plane.url in Path(kubeconfig).read_text(encoding="utf-8")


async def test_an_asyncio_test_has_one_in_its_loop(async_control_plane: ControlPlane) -> None:
    assert await async_control_plane.call("GET", "/readyz") == "ok"


_SHARED = """
import pytest

names = []

@pytest.fixture
def control_plane(shared_control_plane):
    return shared_control_plane

@pytest.mark.parametrize("turn", range(3))
def test_turn(control_plane, namespace, turn):
    assert namespace not in names
    for name in names:
        control_plane.wait_for(f"/api/v1/namespaces/{name}", lambda found: found is None)
    names.append(namespace)
"""


@pytest.mark.slow
def test_one_plane_may_serve_all_tests(tmp_path: Path) -> None:
    printed = pytest_in(tmp_path, _SHARED)
    assert "3 passed" in printed, printed


_IDLE = """
import sys

def test_it():
    loaded = {name for name in sys.modules if name.startswith("pilothouse")}
    assert loaded <= {"pilothouse", "pilothouse.testing", "pilothouse.testing.pytest_plugin"}
    assert not {"msgspec", "uvloop", "cryptography"} & set(sys.modules)
"""


@pytest.mark.slow
def test_who_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    printed = pytest_in(tmp_path, _IDLE)
    assert "1 passed" in printed, printed


_FAILING = """
import threading

def test_it(control_plane, namespace, kubeconfig):
    with open(kubeconfig) as file:
        assert control_plane.url in file.read()
    raise ValueError("for a reason of its own")

def test_nothing_is_left():
    assert threading.enumerate() == [threading.main_thread()]
"""


@pytest.mark.slow
def test_a_failing_test_leaves_nothing_and_needs_no_pytest_asyncio(tmp_path: Path) -> None:
    printed = pytest_in(tmp_path, _FAILING, "-p", "no:asyncio")
    assert "1 failed, 1 passed" in printed, printed
    assert "for a reason of its own" in printed


def test_the_namespace_is_deleted_after_the_test(control_plane: BlockingPlane) -> None:
    from pilothouse.testing.pytest_plugin import namespace

    made = namespace.__wrapped__(control_plane)  # type: ignore[attr-defined]
    name = next(made)
    assert next(made, None) is None
    control_plane.wait_for(f"/api/v1/namespaces/{name}", lambda found: found is None)
    with pytest.raises(NotFound):
        control_plane.call("GET", f"/api/v1/namespaces/{name}")
