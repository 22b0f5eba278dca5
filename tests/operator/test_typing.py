"""mypy --strict takes what fits and refuses a wrong type, each at its line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = '''
from collections.abc import Iterable
from pilothouse.kinds.structs import ConfigMap, Deployment, Resource, Struct
from pilothouse.operator import Context, GenericReconciler, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import generation_changed, where

class Website(Resource, group="typing.example.com", version="v1", plural="websites"):
    """A kind."""

class Right(Reconciler[Website]):
    async def reconcile(self, obj: Website, context: Context) -> Result | None:
        found = context.get(Deployment, obj.metadata.name)
        return None if found is None else Result(requeue_after=found.spec.replicas or 0)

class Wide(Reconciler[Resource]):
    async def reconcile(self, obj: Resource, context: Context) -> Result | None:
        return None

class Wrong(Reconciler[Website]):
    async def reconcile(self, obj: Deployment, context: Context) -> Result | None:  # wrong: override
        return None

class Other(Reconciler[Deployment]):
    async def reconcile(self, obj: Deployment, context: Context) -> Result | None:
        return None

class Children(GenericReconciler[Website, ConfigMap]):
    owned = (ConfigMap,)

    def children(self, parent: Website) -> Iterable[ConfigMap]:
        return [Deployment()]  # wrong: list-item

async def function(obj: Website, context: Context) -> Result | None:
    return None

async def other(obj: Deployment, context: Context) -> Result | None:
    return None

def mapping(found: ConfigMap) -> Iterable[Request]:
    return [Request("ns", found.metadata.name)]

def build(manager: Manager) -> None:
    described = controller(manager).for_(Website, generation_changed).owns(Deployment, where(lambda d: d.spec.paused))
    described.watches(ConfigMap, mapping).with_options(concurrency=2).build(Right())
    described.build(Wide())
    described.build(function)
    described.build(Children())
    described.build(Other())  # wrong: arg-type
    described.build(other)  # wrong: arg-type
    described.watches(Deployment, mapping)  # wrong: arg-type
    described.owns(Struct)  # wrong: type-var
    described.with_options(concurrency="many")  # wrong: arg-type
'''


@pytest.mark.slow
def test_wrong_types_are_refused_and_right_ones_taken(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-error-summary",
            "--cache-dir",
            str(ROOT / ".mypy_cache"),
            str(script),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT / "src")},
    )
    lines = enumerate(PROGRAM.split("\n"), 1)
    expected = {(number, found[1]) for number, line in lines if (found := re.search(r"# wrong: (\S+)", line))}
    reported = re.findall(r"program.py:(\d+): error: .*\[([a-z-]+)\]", done.stdout)
    assert {(int(number), code) for number, code in reported} == expected, done.stdout + done.stderr
