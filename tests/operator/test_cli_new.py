"""`pilothouse operator new`: what it makes is complete, works at once, and is written wholly or not at all."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.operator import cli_new
from pilothouse.operator.cli import operator
from pilothouse.operator.scaffold import Project, ProjectError, files_of

LONG = ("a" + "b" * 39, "A" + "b" * 25, "a" + "b" * 35, "c" * 52 + ".com")

FILES = {
    ".gitignore",
    "Makefile",
    "Procfile",
    "README.md",
    "manifests/00-namespace.yaml",
    "manifests/10-definitions.yaml",
    "manifests/20-rights.yaml",
    "manifests/30-deployment.yaml",
    "pyproject.toml",
    "requirements.txt",
    "samples/website.yaml",
    "tests/conftest.py",
    "tests/test_manifests.py",
    "tests/test_operator.py",
    "website_operator/__init__.py",
    "website_operator/__main__.py",
    "website_operator/kinds.py",
    "website_operator/py.typed",
    "website_operator/reconciler.py",
}


def new(*arguments: str) -> Result:
    return CliRunner().invoke(operator, ["new", *arguments])


@pytest.fixture(scope="module")
def website(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as it is made."""
    target = tmp_path_factory.mktemp("new") / "website-operator"
    done = new("website-operator", "--directory", str(target))
    assert done.exit_code == 0, done.output
    return target


def run(directory: Path, *command: str) -> None:
    """Run a program of this environment in a project."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV_"))}
    arguments = [sys.executable, "-m", *command]
    done = subprocess.run(arguments, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-2000:]}"


def files_in(directory: Path) -> set[str]:
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and "cache" not in str(path.relative_to(directory))
    }


def test_a_project_is_complete(website: Path) -> None:
    assert files_in(website) == FILES
    for path in FILES:
        text = (website / path).read_text(encoding="utf-8")
        assert "${" not in text, path
        assert path == "website_operator/py.typed" or text.endswith("\n")
    assert [entry.name for entry in website.parent.iterdir()] == ["website-operator"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(website.stat().st_mode) == 0o777 & ~umask


def test_its_style_is_right(website: Path) -> None:
    run(website, "ruff", "check", "--no-cache")
    run(website, "ruff", "format", "--check", "--no-cache")


@pytest.mark.slow
def test_its_own_tests_pass(website: Path) -> None:
    run(website, "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.slow
def test_its_types_are_right(website: Path, tmp_path: Path) -> None:
    run(website, "mypy", "--strict", "--cache-dir", str(tmp_path))


def test_its_tests_can_fail(website: Path) -> None:
    """One that is green whatever the operator does would teach nothing."""
    text = (website / "tests" / "test_operator.py").read_text()
    assert text.count("await harness.converge()") >= 7
    assert text.count("await harness.assert_stable()") >= 3


def test_names_are_everywhere_where_they_belong(tmp_path: Path) -> None:
    target = tmp_path / "fleet"
    arguments = ["--kind", "HTTPProxy", "--group", "sea.example.com", "--version", "v1beta1"]
    done = new("fleet", *arguments, "--directory", str(target))
    assert done.exit_code == 0, done.output
    definition = yaml.safe_load((target / "manifests" / "10-definitions.yaml").read_text())
    assert definition["metadata"]["name"] == "httpproxies.sea.example.com"
    assert definition["spec"]["names"]["kind"] == "HTTPProxy"
    assert [one["name"] for one in definition["spec"]["versions"]] == ["v1beta1"]
    sample = yaml.safe_load((target / "samples" / "httpproxy.yaml").read_text())
    assert (sample["apiVersion"], sample["kind"]) == ("sea.example.com/v1beta1", "HTTPProxy")
    assert "website" not in "".join((target / path).read_text().lower() for path in files_in(target))
    run(target, "ruff", "check", "--no-cache")
    run(target, "ruff", "format", "--check", "--no-cache")


def test_the_longest_names_make_no_line_too_long(tmp_path: Path) -> None:
    name, kind, plural, group = LONG
    for path, text in files_of(Project(name=name, kind=kind, plural=plural, group=group, version="v10alpha10")).items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    run(tmp_path, "ruff", "check", "--no-cache")
    run(tmp_path, "ruff", "format", "--check", "--no-cache")


def test_what_to_do_next_is_said(website: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = new("website-operator")
    assert "cd website-operator" in done.output
    assert "make test lint" in done.output
    assert files_in(tmp_path / "website-operator") == FILES


def test_help_has_examples() -> None:
    assert "pilothouse operator new website-operator" in new("--help").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Website Operator"], "NAME 'Website Operator': want a lower-case letter"),
        (["Website Operator"], "how about website-operator?"),
        (["1st"], "how about st?"),
        (["../up"], "how about up?"),
        (["a" * 41], "at most 40"),
        (["json"], "there is a package json already; how about json-operator?"),
        (["yaml"], "it would hide yaml, which PyYAML installs"),
        (["tests"], "there is a package tests already"),
        (["pilothouse"], "there is a package pilothouse already"),
        (["fleet", "--kind", "ship"], "--kind 'ship': want CamelCase, letters and digits, at most 26; how about Ship?"),
        (["fleet", "--kind", "big-ship"], "how about BigShip?"),
        (["fleet", "--kind", "Deployment"], "has a Deployment; choose another"),
        (["fleet", "--kind", "Pod"], "has a Pod; choose another"),
        (["fleet", "--kind", "Generic"], "has a GenericReconciler; choose another"),
        (["fleet", "--kind", "Child"], "has a Child"),
        (["fleet", "--kind", "Harness"], "has a Harness"),
        (["fleet", "--kind", "A" * 27], "at most 26"),
        (["fleet", "--plural", "Ships!"], "--plural 'Ships!': want lower-case letters and digits"),
        (["fleet", "--group", "example"], "--group 'example': want a domain of yours"),
        (["fleet", "--group", "apps.k8s.io"], "Kubernetes keeps it for itself"),
        (["fleet", "--version", "1"], "--version '1': want v1, v1beta1 or v1alpha1; how about v1?"),
        (["fleet", "--version", "v1gamma1"], "want v1, v1beta1 or v1alpha1"),
    ],
)
def test_names_that_cannot_be_are_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = new(*arguments)
    assert said in done.output
    assert done.exit_code == 2
    assert not [*tmp_path.iterdir()]


def test_what_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "precious").write_text("text")
    done = new("fleet")
    assert "fleet is not empty; nothing was written" in done.output
    assert "--force" in done.output
    assert done.exit_code == 5
    assert files_in(tmp_path) == {"fleet/precious"}
    done = new("fleet", "--force")
    assert done.exit_code == 0, done.output
    assert "what was there is in fleet.old" in done.output
    assert (tmp_path / "fleet.old" / "precious").read_text() == "text"
    assert (tmp_path / "fleet" / "fleet" / "kinds.py").is_file()
    done = new("fleet", "--force")
    assert "fleet.old is there already" in done.output
    assert (tmp_path / "fleet.old" / "precious").read_text() == "text"


def test_places_that_cannot_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for directory, said, code in (
        ("file", "is a file; nothing was written", 5),
        (".", "is the current directory", 2),
        ("no/where", "there is no directory", 4),
    ):
        done = new("fleet", "--directory", directory)
        assert said in done.output
        assert done.exit_code == code
    assert files_in(tmp_path) == {"file"}


def test_an_empty_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert new("fleet", "--directory", str(tmp_path / "empty")).exit_code == 0
    assert (tmp_path / "empty" / "fleet").is_dir()


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(project: Project) -> dict[str, str]:
        return files_of(project) | {
            "fleet/__init__.py": "def build(manager: object) -> None:\n    raise OSError('no')\n"
        }

    monkeypatch.setattr(cli_new, "files_of", broken)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "precious").write_text("")
    done = new("fleet", "--directory", str(tmp_path / "fleet"))
    assert "no manifests could be made, so nothing was written" in done.output
    assert done.exit_code == 1
    done = new("fleet", "--directory", str(tmp_path / "kept"), "--force")
    assert done.exit_code == 1
    assert files_in(tmp_path) == {"kept/precious"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    done = new("fleet", "--directory", str(tmp_path / "fleet"))
    assert "cannot be written: Permission denied" in done.output
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("name", "kind", "plural"),
    [
        ("website-operator", "Website", "websites"),
        ("policy-controller", "Policy", "policies"),
        ("big-ship", "BigShip", "bigships"),
        ("gateway2", "Gateway2", "gateway2s"),
        ("fox", "Fox", "foxes"),
        ("key-operator", "Key", "keys"),
    ],
)
def test_names_follow_from_the_first(name: str, kind: str, plural: str) -> None:
    project = Project(name=name)
    assert (project.kind, project.plural) == (kind, plural)


@given(st.text("abcxyz019-_. AZ", max_size=45))
def test_any_name_is_taken_or_refused_with_a_name_that_is_taken(name: str) -> None:
    try:
        project = Project(name=name, kind="Thing")
    except ProjectError as error:
        advice = re.search(r"how about (.+)\?", str(error))
        if advice is not None:
            assert Project(name=advice[1], kind="Thing").name == advice[1]
    else:
        assert project.package.isidentifier()


def test_no_template_has_a_name_that_is_not_filled_in() -> None:
    made = files_of(Project(name="website-operator"))
    assert {*made} == {path for path in FILES if not path.startswith("manifests/") and not path.endswith("py.typed")}
    assert "$(BIN)/ruff check" in made["Makefile"]
    assert "\tpack build $(IMAGE)" in made["Makefile"]
