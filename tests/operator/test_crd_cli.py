from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from pilothouse.cli import main
from pilothouse.foundation.terminal import ExitCode

Captured = pytest.CaptureFixture[str]

MODULE = '''
from pilothouse.kinds.structs import Deployment, Resource, Struct
from pilothouse.operator.crds import custom_resource


class BoatSpec(Struct):
    crew: int = 2


class OldBoat(Resource, group="example.com", version="v1beta1", kind="Boat", plural="boats"):
    spec: BoatSpec = BoatSpec()


@custom_resource(storage=True)
class Boat(Resource, group="example.com", version="v1", plural="boats"):
    """Ein Böötchen."""

    spec: BoatSpec = BoatSpec()


class Anchor(Resource, group="example.com", version="v1", plural="anchors"):
    spec: BoatSpec = BoatSpec()
'''


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the module `fleet_kinds`; nothing of it stays imported."""
    (tmp_path / "fleet_kinds.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["crd", "generate", *arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_all_definitions_of_a_module_as_yaml(capsys: Captured) -> None:
    assert run("fleet_kinds") == ExitCode.OK
    text = capsys.readouterr().out
    anchor, boat = yaml.safe_load_all(text)
    assert [each["metadata"]["name"] for each in (anchor, boat)] == ["anchors.example.com", "boats.example.com"]
    assert [each["name"] for each in boat["spec"]["versions"]] == ["v1", "v1beta1"]
    assert boat["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] == "Ein Böötchen."
    assert "Böötchen" in text
    assert "&id" not in text


def test_one_class_has_all_its_versions(capsys: Captured) -> None:
    assert run("fleet_kinds:OldBoat", "-o", "json") == ExitCode.OK
    found = msgspec.json.decode(capsys.readouterr().out)
    assert [(each["name"], each["storage"]) for each in found["spec"]["versions"]] == [("v1", True), ("v1beta1", False)]


def test_several_as_json_are_a_list(capsys: Captured) -> None:
    assert run("fleet_kinds", "-o", "json") == ExitCode.OK
    found = msgspec.json.decode(capsys.readouterr().out)
    assert (found["kind"], len(found["items"])) == ("List", 2)


def test_a_file_for_each(directory: Path, capsys: Captured) -> None:
    assert run("./fleet_kinds.py", "--output-dir", "made/here") == ExitCode.OK
    names = ["example.com_anchors.yaml", "example.com_boats.yaml"]
    assert capsys.readouterr().out.split() == [f"made/here/{name}" for name in names]
    assert sorted(path.name for path in (directory / "made/here").iterdir()) == names
    first = (directory / "made/here" / names[1]).read_bytes()
    assert run("fleet_kinds", "--output-dir", "made/here") == ExitCode.OK
    assert (directory / "made/here" / names[1]).read_bytes() == first


@pytest.mark.parametrize(
    ("argument", "code", "message", "hint"),
    [
        ("fleet_kind", ExitCode.NOT_FOUND, "there is no module 'fleet_kind'", "the path of the file"),
        ("fleet.kinds", ExitCode.NOT_FOUND, "there is no module 'fleet.kinds': no 'fleet'", "from the directory"),
        ("fleet_kinds:Boot", ExitCode.NOT_FOUND, "fleet_kinds has no Resource class 'Boot'", "did you mean Boat?"),
        ("fleet_kinds:Quay", ExitCode.NOT_FOUND, "has no Resource class 'Quay'", "it has Anchor, Boat, OldBoat"),
        ("fleet_kinds:BoatSpec", ExitCode.NOT_FOUND, "no Resource class 'BoatSpec'", "BoatSpec is another class"),
        ("nothing.py", ExitCode.NOT_FOUND, "there is no file nothing.py", "give a .py file or a module"),
        ("./nothing:Boat", ExitCode.NOT_FOUND, "there is no file nothing", "give a .py file"),
        ("notes.txt", ExitCode.NOT_FOUND, "there is no module 'notes.txt'", "the path of the file"),
        ("./notes.txt", ExitCode.USAGE, "notes.txt is no Python file", "ends with .py"),
        (
            "string",
            ExitCode.NOT_FOUND,
            "string has no Resource classes of its own",
            "write class Website(Resource",
        ),
        ("failing", ExitCode.FAILED, "failing cannot be imported: ValueError: broken", "--debug"),
        ("failing.py", ExitCode.FAILED, "failing.py cannot be imported: ValueError: broken", "--debug"),
        ("wanting", ExitCode.FAILED, "wanting cannot be imported: ModuleNotFoundError: No module named 'nowhere'", ""),
        ("typo", ExitCode.FAILED, "typo cannot be imported: SyntaxError", "--debug"),
        ("unfit", ExitCode.FAILED, "Part.x: there is no schema for complex", "docs/operator-crds.md"),
        ("..fleet", ExitCode.USAGE, "'..fleet' is no name of a module", ""),
        ("", ExitCode.USAGE, "'' is no name of a module", ""),
    ],
)
def test_errors_teach(directory: Path, capsys: Captured, argument: str, code: int, message: str, hint: str) -> None:
    files = {
        "notes.txt": "",
        "failing.py": "raise ValueError('broken')",
        "wanting.py": "import nowhere",
        "typo.py": "class",
        "unfit.py": (
            "from pilothouse.kinds.structs import Resource, Struct\n"
            "class Part(Struct):\n    x: complex\n"
            "class Thing(Resource, group='example.com', version='v1', plural='things'):\n    spec: Part\n"
        ),
    }
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    assert run(argument) == code
    error = capsys.readouterr().err
    assert message in error.partition("\n")[0]
    assert hint in error


def test_texts_that_look_like_others_are_quoted(directory: Path, capsys: Captured) -> None:
    text = MODULE.replace("crew: int = 2", 'crew: Literal["y", "1e3", "0x1f", "on", "1_0"] = "1e3"')
    (directory / "quoted_kinds.py").write_text(f"from typing import Literal\n{text}", encoding="utf-8")
    assert run("quoted_kinds:Anchor") == ExitCode.OK
    found = capsys.readouterr().out
    assert all(f"- '{each}'" in found for each in ("y", "1e3", "0x1f", "on", "1_0"))


def test_a_file_that_has_the_name_of_a_module(directory: Path, capsys: Captured) -> None:
    (directory / "string.py").write_text(MODULE, encoding="utf-8")
    assert run("string.py:Boat") == ExitCode.OK
    assert "boats.example.com" in capsys.readouterr().out
    assert hasattr(sys.modules["string"], "ascii_letters")
