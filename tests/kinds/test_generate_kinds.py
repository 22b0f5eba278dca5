"""The script that writes the tables: it tells what is out of date, and needs no source to find damage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "generate-kinds"
DATA = ROOT / "src" / "pilothouse" / "kinds" / "data"

META = "io.k8s.apimachinery.pkg.apis.meta.v1."
TYPES = {
    "io.k8s.api.core.v1.Pod": {
        "fields": {"metadata": {"ref": f"{META}ObjectMeta"}, "names": {"type": "array", "items": {"type": "string"}}},
        "required": ["names"],
        "gvk": [["", "v1", "Pod"]],
    },
    f"{META}ObjectMeta": {"fields": {"count": {"type": "integer", "format": "int32", "default": 1}}},
}
MESSAGES = {
    "k8s.io.api.core.v1.Pod": {
        "2": ["names", "string", "repeated"],
        "10": ["counts", "map<string,k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta>", "map"],
        "1": ["metadata", "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta", "optional"],
        "3": ["next", "Pod", "optional"],
    },
    "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta": {"1": ["count", "int32", "optional"]},
}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    (place / "kubernetes-types.json").write_text(json.dumps(TYPES))
    (place / "kubernetes-protobuf.json").write_text(json.dumps(MESSAGES))
    (place / "kubernetes-resources.json").write_text(json.dumps([{"group": "", "resource": "pods"}]))
    return place


@pytest.fixture
def into(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    return place


def test_the_committed_tables_are_sound(tmp_path: Path) -> None:
    done = run("--check", tmp_path / "absent")
    assert done.returncode == 0, done.stdout
    assert "only digests and references checked" in done.stdout


def test_the_tables_are_small() -> None:
    assert (DATA / "types.json").stat().st_size <= 200_000
    assert (DATA / "protobuf.json").stat().st_size + (DATA / "gowire.json").stat().st_size <= 160_000


def test_types_are_written_one_a_line(source: Path, into: Path) -> None:
    assert run("--into", into, source).returncode == 0
    text = (into / "types.json").read_text()
    assert '"a.core.v1.Pod":{"f":{"metadata":"@m.apis.meta.v1.ObjectMeta","names":{"l":"s"}},"q":["names"]}' in text
    assert '"m.apis.meta.v1.ObjectMeta":{"f":{"count":{"d":1,"is":"i32"}}}' in text.splitlines()
    assert json.loads(text)["kinds"] == {"/v1/Pod": "a.core.v1.Pod"}
    assert json.loads((into / "resources.json").read_text())["resources"] == [{"group": "", "resource": "pods"}]
    assert run("--check", "--into", into, source).returncode == 0


def test_messages_are_written_one_a_line(source: Path, into: Path) -> None:
    assert run("--into", into, source).returncode == 0
    table = json.loads((into / "protobuf.json").read_text())
    assert table["messages"]["a.core.v1.Pod"] == [
        "1 metadata @m.apis.meta.v1.ObjectMeta",
        "2 names []s",
        "3 next @a.core.v1.Pod",
        "10 counts {}@m.apis.meta.v1.ObjectMeta",
    ]


def test_a_message_of_a_type_that_is_not_there_is_found(source: Path, into: Path, tmp_path: Path) -> None:
    only = {name: fields for name, fields in MESSAGES.items() if name.endswith("Pod")}
    (source / "kubernetes-protobuf.json").write_text(json.dumps(only))
    run("--into", into, source)
    done = run("--check", "--into", into, tmp_path / "absent")
    assert done.returncode == 1
    assert "protobuf.json: m.apis.meta.v1.ObjectMeta: no such type" in done.stdout


def test_a_change_of_the_source_is_told_and_not_written(source: Path, into: Path) -> None:
    run("--into", into, source)
    before = (into / "types.json").read_bytes()
    (source / "kubernetes-types.json").write_text(json.dumps({**TYPES, f"{META}Time": {"type": "string"}}))
    done = run("--check", "--into", into, source)
    assert done.returncode == 1
    assert "types.json is out of date: run scripts/generate-kinds" in done.stdout
    assert (into / "types.json").read_bytes() == before


def test_without_a_source_nothing_is_generated(tmp_path: Path, into: Path) -> None:
    done = run("--into", into, tmp_path / "absent")
    assert done.returncode == 2
    assert "no source" in done.stdout
    assert not list(into.iterdir())


def test_a_change_by_hand_is_found_without_the_source(tmp_path: Path, into: Path) -> None:
    shutil.copytree(DATA, into, dirs_exist_ok=True)
    place = into / "types.json"
    place.write_text(place.read_text().replace('"containerPort"', '"containerPot"', 1))
    done = run("--check", "--into", into, tmp_path / "absent")
    assert done.returncode == 1
    assert "types.json: changed by hand" in done.stdout


def test_a_reference_to_nothing_is_found(source: Path, into: Path, tmp_path: Path) -> None:
    types = {name: node for name, node in TYPES.items() if not name.endswith("ObjectMeta")}
    (source / "kubernetes-types.json").write_text(json.dumps(types))
    run("--into", into, source)
    done = run("--check", "--into", into, tmp_path / "absent")
    assert done.returncode == 1
    assert "m.apis.meta.v1.ObjectMeta: no such type" in done.stdout


def test_a_property_without_a_meaning_here_is_refused(source: Path, into: Path) -> None:
    (source / "kubernetes-types.json").write_text(json.dumps({f"{META}Time": {"type": "string", "pattern": "x"}}))
    done = run("--into", into, source)
    assert done.returncode == 1
    assert "['pattern'] mean nothing here" in done.stderr


def test_a_go_name_for_a_field_that_is_not_there_is_found(into: Path, tmp_path: Path) -> None:
    shutil.copytree(DATA, into, dirs_exist_ok=True)
    place = into / "gotypes.json"
    place.write_text(place.read_text().replace("a.core.v1.ServicePort.protocol", "a.core.v1.ServicePort.wombat"))
    done = run("--check", "--into", into, tmp_path / "absent")
    assert done.returncode == 1
    assert "a.core.v1.ServicePort.wombat: no such field" in done.stdout


def test_a_fact_of_a_message_field_that_is_not_there_is_found(into: Path, tmp_path: Path) -> None:
    shutil.copytree(DATA, into, dirs_exist_ok=True)
    place = into / "gowire.json"
    place.write_text(
        place.read_text().replace('"a.apps.v1.DeploymentSpec":{"', '"a.apps.v1.DeploymentSpec":{"z":"wombat","')
    )
    done = run("--check", "--into", into, tmp_path / "absent")
    assert done.returncode == 1
    assert "a.apps.v1.DeploymentSpec.wombat: no such field" in done.stdout
