from __future__ import annotations

import json
import sys
from typing import Any

import click
import msgspec
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.terminal import emit, examples, output_option, printable

Captured = pytest.CaptureFixture[str]


class Row(msgspec.Struct):
    name: str
    size: int
    tags: list[str] = []
    ready: bool = True
    owner: str | None = None


ROWS = [Row("alpha", 1, ["a", "b"]), Row("b", 20_000, ready=False, owner="ann")]


def test_a_plain_table_is_aligned(capsys: Captured) -> None:
    emit(ROWS, "table", ["name", "size", "tags", "ready"])
    assert capsys.readouterr().out.splitlines() == [
        "NAME   SIZE   TAGS  READY",
        "alpha  1      a, b  yes",
        "b      20000        no",
    ]


def test_all_columns_and_single_objects(capsys: Captured) -> None:
    emit([{"a_b": 1}, {"c": {"x": 1}}])
    assert capsys.readouterr().out.splitlines() == ["A B  C", "1", '     {"x":1}']
    emit(ROWS[0], columns=["name", "owner"])
    assert capsys.readouterr().out.splitlines() == ["name   alpha", "owner"]
    emit(["one", "two"])
    assert capsys.readouterr().out.splitlines() == ["VALUE", "one", "two"]
    emit(7)
    assert capsys.readouterr().out == "7\n"
    emit([], "table", ["name"])
    assert capsys.readouterr().out == "NAME\n"
    emit({})
    assert capsys.readouterr().out == ""


def test_json_and_yaml_hold_every_field(capsys: Captured) -> None:
    emit(ROWS, "json", ["name"])
    found = json.loads(capsys.readouterr().out)
    assert found == msgspec.to_builtins(ROWS)
    emit(ROWS, "yaml", ["name"])
    assert yaml.safe_load(capsys.readouterr().out) == found


def test_texts_and_numbers_of_derived_classes_are_plain_ones(capsys: Captured) -> None:
    class Text(str):
        __slots__ = ()

    emit([{"name": Text("a"), "count": _Count(3)}], "json")
    assert json.loads(capsys.readouterr().out) == [{"name": "a", "count": 3}]
    with pytest.raises(NotImplementedError, match="object is no data"):
        emit(object())


class _Count(int):
    __slots__ = ()


def test_on_a_terminal_it_is_drawn_without_markup(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    emit([Row("[red]x[/red]", 1)], columns=["name", "size"])
    emit(ROWS[0])
    shown = capsys.readouterr().out
    assert "[red]x[/red]" in shown
    assert "alpha" in shown


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=10))
def test_a_cell_is_one_line_and_steers_no_terminal(value: Any) -> None:
    assert printable(value).isprintable()


def test_a_cell_is_bounded_and_escaped() -> None:
    assert printable("\x1b[31mred\n") == "\\x1b[31mred\\n"
    assert printable("x" * 9999).endswith("… (9999 characters)")


def test_option_and_examples() -> None:
    @click.command(epilog=examples("prog run", "# a comment"))
    @output_option
    def show(output: str) -> None:
        emit({"a": 1}, output)

    runner = CliRunner()
    assert json.loads(runner.invoke(show, ["-o", "json"]).output) == {"a": 1}
    assert runner.invoke(show, []).output == "a  1\n"
    assert runner.invoke(show, ["-o", "toml"]).exit_code == 2
    shown = runner.invoke(show, ["--help"]).output
    assert "Examples:\n    $ prog run\n    # a comment\n" in shown
