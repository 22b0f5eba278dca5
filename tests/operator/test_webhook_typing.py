"""mypy --strict takes webhooks that fit their kind and refuses others, each at its line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = '''
from collections.abc import Sequence
from typing import Any
from pilothouse.kinds.structs import ConfigMap, Deployment, Resource
from pilothouse.operator import AdmissionRequest, Manager, Mutator, Validator, WebhookOptions, converts, webhook

class Website(Resource, group="typing.example.com", version="v2", plural="websites"):
    """A kind."""

class WebsiteV1(Resource, group="typing.example.com", version="v1", plural="websites", kind="Website"):
    """Its old version."""

class Waits(Validator[Website]):
    async def create(self, new: Website, request: AdmissionRequest) -> Sequence[str] | None:
        return [request.user.username]

class Plain(Validator[Website]):
    def update(self, old: Website, new: Website, request: AdmissionRequest) -> None:
        return None

class Wrong(Validator[Website]):
    async def create(self, new: Deployment, request: AdmissionRequest) -> Sequence[str] | None:  # wrong: override
        return None

class Changes(Mutator[Website]):
    def mutate(self, obj: Website, request: AdmissionRequest) -> Website:
        return obj

def judge(new: Website, request: AdmissionRequest) -> None:
    return None

async def fill(obj: Website, request: AdmissionRequest) -> Website:
    return obj

def other(obj: Deployment, request: AdmissionRequest) -> Deployment:
    return obj

def look(request: AdmissionRequest) -> list[str]:
    return []

def change(request: AdmissionRequest) -> dict[str, Any] | None:
    return request.object

@converts
def forward(old: WebsiteV1) -> Website:
    return Website(metadata=old.metadata)

def back(new: Website) -> WebsiteV1:
    return WebsiteV1(metadata=new.metadata)

def build(manager: Manager) -> None:
    described = webhook(manager).for_(Website).defaulted_by(fill).validated_by(judge).converted_by(forward, back)
    described.with_options(failure_policy="Ignore", operations=["CREATE"], timeout_seconds=3).build()
    webhook(manager).for_(Website).validated_by(Waits()).build()
    webhook(manager).for_(Website).validated_by(Plain()).defaulted_by(Changes()).build()
    webhook(manager).for_(Deployment).validated_by(Plain())  # wrong: arg-type
    webhook(manager).for_(Website).defaulted_by(other)  # wrong: arg-type
    webhook(manager).for_(Website).validated_by(other)  # wrong: arg-type
    described.with_options(failure_policy="ignore")  # wrong: arg-type
    described.with_options(operations=["PATCH"])  # wrong: list-item
    forward(Deployment())  # wrong: arg-type
    webhook(manager, "raw").for_resources("pods").validated_by(look).mutated_by(change).build()
    webhook(manager, "raw").for_resources("pods").mutated_by(look)  # wrong: arg-type
    Manager(manager.client, webhooks=WebhookOptions(name="a", port=1))  # wrong: call-arg
'''


@pytest.mark.slow
def test_wrong_types_are_refused_and_right_ones_taken(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    cache = str(ROOT / ".mypy_cache")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", cache, str(script)],
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
