"""Options in a file: the names and values of the command line, which counts more; what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pilothouse.platform.configfile import ConfigFileError, config_option, options_of, read_options


@click.command()
@config_option(left_out=("print-unit",))
@click.option("--data-dir", default="usual")
@click.option("--tls-san", multiple=True)
@click.option("--without", default="")
@click.option("--max-pods", type=click.IntRange(1), default=110)
@click.option("--quiet", is_flag=True)
@click.option("--print-unit", is_flag=True)
def command(**settings: Any) -> None:
    settings.pop("config")
    click.echo(settings)


def run(directory: Path, text: str, *arguments: str) -> str:
    (directory / "c.yaml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(command, ["--config", str(directory / "c.yaml"), *arguments]).output


def test_the_file_has_what_the_command_line_has(tmp_path: Path) -> None:
    text = "data-dir: d\ntls-san: [a, b]\nwithout: [x, y]\nmax-pods: 7\nquiet: true\n"
    assert eval(run(tmp_path, text)) == {
        "data_dir": "d",
        "tls_san": ("a", "b"),
        "without": "x,y",
        "max_pods": 7,
        "quiet": True,
        "print_unit": False,
    }
    assert eval(run(tmp_path, "tls-san: one\nwithout: x,y\n"))["tls_san"] == ("one",)


def test_the_command_line_counts_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    told = eval(run(tmp_path, "data-dir: file\nmax-pods: 7\n", "--max-pods", "8"))
    assert (told["data_dir"], told["max_pods"], told["without"]) == ("file", 8, "")
    assert eval(run(tmp_path, ""))["data_dir"] == "usual"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data-dri: x", "data-dri: there is no such option; did you mean data-dir?"),
        ("dataDir: x", "dataDir: there is no such option; did you mean data-dir?"),
        ("max_pods: 1", "max_pods: there is no such option; did you mean max-pods?"),
        ("zebra: 1", "zebra: there is no such option\n"),
        ("print-unit: true", "print-unit: is for the command line only"),
        ("config: x", "config: is for the command line only"),
        ("max-pods: 0", "Invalid value for '--max-pods'"),
        ("max-pods: [1]", "max-pods: has one value, not a list"),
        ("data-dir:", "data-dir: want a value"),
        ("data-dir: true", "data-dir: want a text; put it into quotes"),
        ("quiet: maybe", "quiet: want true or false"),
        ("tls-san: [true]", "tls-san: want a list of texts"),
        ("tls-san: {a: b}", "tls-san: want a value"),
        ("- x", "want lines of `option: value`"),
        ("data-dir: [secret", "not YAML"),
        ("data-dir: !!python/object:os.system x", "not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(tmp_path: Path, text: str, told: str) -> None:
    shown = run(tmp_path, text)
    assert told in shown
    assert "secret" not in shown


def test_a_file_that_is_not_there_or_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"none\.yaml: cannot be read: No such file"):
        read_options(str(tmp_path / "none.yaml"))
    (tmp_path / "big").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigFileError, match="this is no file of options"):
        read_options(str(tmp_path / "big"))
    assert options_of("f", {}, command.params, set()) == {}
