from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pilothouse import __version__
from pilothouse.cli import COMMANDS, LazyCommand, LazyGroup, main
from pilothouse.foundation.terminal import EXIT_CODES, CommandError, ExitCode

Captured = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_importing_the_command_line_stays_light() -> None:
    code = "import sys, json, pilothouse.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "click" in loaded
    heavy = {"asyncio", "cryptography", "google.protobuf", "ngh2", "opentelemetry", "prometheus_client", "rich"}
    assert not loaded & (heavy | {"sortedcontainers", "structlog", "uvloop", "yaml", "pilothouse.store"})


def test_help_lists_commands_examples_and_exit_codes(capsys: Captured) -> None:
    assert run("--help") == ExitCode.OK
    shown = capsys.readouterr().out
    for entry in COMMANDS:
        assert entry.help in shown
    assert "  $ pilothouse doctor\n" in shown
    for code, text in EXIT_CODES.items():
        assert f"{int(code)}" in shown
        assert text in shown


def test_every_command_has_help_with_examples(capsys: Captured) -> None:
    own = [entry for entry in COMMANDS if entry.module.startswith("pilothouse.cli.")]
    assert own
    for entry in own:
        assert run(entry.name, "--help") == ExitCode.OK
        shown = capsys.readouterr().out
        assert "Examples:\n" in shown
        assert f"$ pilothouse {entry.name}" in shown


def test_no_command_shows_the_help(capsys: Captured) -> None:
    assert run() == ExitCode.USAGE
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["nothing"], "No such command 'nothing'", "pilothouse --help"),
        (["version", "--nothing"], "No such option", "pilothouse version --help"),
        (["version", "-o", "xml"], "'xml' is not one of 'table', 'json', 'yaml'", "pilothouse version --help"),
    ],
)
def test_wrong_usage_says_where_to_look(arguments: list[str], message: str, hint: str, capsys: Captured) -> None:
    assert run(*arguments) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert f"hint: {hint}\n" in shown.err


def add_failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the command `version` raise `error`."""

    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("pilothouse.cli.version"), "version", failing)


def test_an_unexpected_error_is_a_sentence_unless_debugging(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    add_failing(monkeypatch, RuntimeError("the disk is on fire"))
    assert run("version") == ExitCode.FAILED
    assert capsys.readouterr().err.startswith("error: the disk is on fire\nhint: ")
    assert run("--debug", "version") == ExitCode.FAILED
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("PILOTHOUSE_DEBUG", "1")
    assert run("version") == ExitCode.FAILED
    assert "Traceback" in capsys.readouterr().err


def test_a_command_error_has_its_own_code_and_hint(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    add_failing(monkeypatch, CommandError("store: not reachable", hint="start it", code=ExitCode.UNAVAILABLE))
    assert run("version") == ExitCode.UNAVAILABLE
    assert capsys.readouterr().err == "error: store: not reachable\nhint: start it\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interrupted(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    add_failing(monkeypatch, error)
    assert run("version") == ExitCode.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    group = LazyGroup(table=[LazyCommand("x", "needs_ngh2", "x", "Needs it.")], name="group")

    def fail(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name}", name="ngh2.asyncio")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(CommandError, match=r"needs pilothouse\[server\]: the library 'ngh2.asyncio'") as caught:
        group.get_command(click.Context(group), "x")
    assert caught.value.hint == "pip install 'pilothouse[server]'"
    assert caught.value.exit_code == ExitCode.UNAVAILABLE


def test_a_library_missed_while_running_names_its_extra_too(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    add_failing(monkeypatch, ModuleNotFoundError("No module named 'uvloop'", name="uvloop"))
    assert run("version") == ExitCode.UNAVAILABLE
    assert capsys.readouterr().err == (
        "error: this command needs pilothouse[server]: the library 'uvloop' is not installed\n"
        "hint: pip install 'pilothouse[server]'\n"
    )
    add_failing(monkeypatch, ModuleNotFoundError("No module named 'other'", name="other"))
    assert run("version") == ExitCode.FAILED


def test_the_documented_exit_codes_are_these() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE))
    assert documented == {str(int(code)): text for code, text in EXIT_CODES.items()}


def test_a_broken_command_is_not_taken_for_a_missing_extra() -> None:
    table = [LazyCommand("x", "pilothouse.no_such_room", "x", "Broken."), LazyCommand("y", "json", "dumps", "Wrong.")]
    group = LazyGroup(table=table, name="group")
    with pytest.raises(ModuleNotFoundError):
        group.get_command(click.Context(group), "x")
    with pytest.raises(TypeError, match="json:dumps is a function, not a command"):
        group.get_command(click.Context(group), "y")


def test_version_in_every_format(capsys: Captured) -> None:
    import yaml

    assert run("version", "-o", "json") == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert found["pilothouse"] == __version__
    assert {"python", "platform", "openssl", "msgspec"} <= set(found)
    assert run("version", "-o", "yaml") == ExitCode.OK
    assert yaml.safe_load(capsys.readouterr().out) == found
    assert run("version") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["pilothouse", __version__]
    assert len(lines) == len(found)


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m pilothouse version | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
