"""The options of a command in a file (YAML), by the names that they have on the command line, as k3s has them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click
import yaml

__all__ = ["ConfigFileError", "config_option", "options_of", "read_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_MAX_BYTES: Final = 1 << 20
_LISTED: Final = frozenset({"without", "enable-admission-plugins", "disable-admission-plugins"})
"""Options of one text with commas, which the file may have as lists."""


class ConfigFileError(Exception):
    """A file of options cannot be used; the message names the file, the option and the way out."""


def config_option(*, left_out: Sequence[str] = ()) -> Callable[[_Command], _Command]:
    """Return the option --config FILE of a command: the command line counts before the file, the file before defaults.

    left_out: options that make no sense in a file, by their names on the command line.
    """

    def take(ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            try:
                found = read_options(value)
                ctx.default_map = options_of(value, found, ctx.command.params, {"config", "help", *left_out})
            except ConfigFileError as error:
                raise click.UsageError(str(error), ctx) from error
        return value

    return click.option(
        "--config",
        type=click.Path(),
        envvar="PILOTHOUSE_CONFIG",
        is_eager=True,
        callback=take,
        help="Options in a YAML file, by the names they have here; those given here count more.",
    )


def read_options(path: str) -> Mapping[str, object]:
    """Return what a file has. Raises ConfigFileError."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigFileError(f"{path}: over {_MAX_BYTES} bytes; this is no file of options")
        found = yaml.safe_load(data)
    except OSError as error:
        raise ConfigFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        # The parser's own message quotes the line, which may hold a token.
        mark = getattr(error, "problem_mark", None)
        where = f": {getattr(error, 'problem', '')} (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigFileError(f"{path}: not YAML{where}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigFileError(f"{path}: want lines of `option: value`, such as `listen: 127.0.0.1:6443`")
    return {str(key): value for key, value in found.items()}


def options_of(
    path: str, found: Mapping[str, object], params: Iterable[click.Parameter], left_out: set[str]
) -> dict[str, Any]:
    """Return a file's values by the names that a command's function has for them. Raises ConfigFileError."""
    known = {_shown(param): param for param in params if isinstance(param, click.Option)}
    known = {name: param for name, param in known.items() if name not in left_out}
    made: dict[str, Any] = {}
    for key, value in found.items():
        param = known.get(key)
        if param is None:
            raise ConfigFileError(f"{path}: {key}: {_unknown(key, known, left_out)}")
        made[str(param.name)] = _value(path, key, value, param)
    return made


def _shown(param: click.Option) -> str:
    return max(param.opts, key=len).lstrip("-")


def _unknown(key: str, known: Mapping[str, click.Option], left_out: set[str]) -> str:
    if key in left_out:
        return "is for the command line only"
    plain = key.lstrip("-").replace("_", "-")
    folded = {name.replace("-", ""): name for name in known}
    near = difflib.get_close_matches(plain.replace("-", "").lower(), folded, n=1)
    return f"there is no such option; did you mean {folded[near[0]]}?" if near else "there is no such option"


def _value(path: str, key: str, value: object, param: click.Option) -> object:
    if isinstance(value, dict) or value is None:
        raise ConfigFileError(f"{path}: {key}: want a value, as after --{key} on the command line")
    if param.is_flag:
        if not isinstance(value, bool):
            raise ConfigFileError(f"{path}: {key}: want true or false")
        return value
    if isinstance(value, bool):
        raise ConfigFileError(f"{path}: {key}: want a text; put it into quotes")
    if isinstance(value, list):
        if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in value):
            raise ConfigFileError(f"{path}: {key}: want a list of texts; put each into quotes")
        texts = [str(one) for one in value]
        if param.multiple:
            return texts
        if key in _LISTED:
            return ",".join(texts)
        raise ConfigFileError(f"{path}: {key}: has one value, not a list")
    return [str(value)] if param.multiple else str(value)
