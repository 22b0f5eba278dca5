"""`pilothouse crd`: definitions of custom resources from the classes of a module."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import msgspec
import yaml

from pilothouse.foundation.files import OsFileSystem, write_whole
from pilothouse.foundation.terminal import CommandError, ExitCode, examples
from pilothouse.kinds.structs import Resource
from pilothouse.operator.crd_errors import DefinitionError
from pilothouse.operator.crds import definition

__all__ = ["crd", "definitions_of", "load_module", "manifest_text"]

_FILE_MODE = 0o644
_DOUBTFUL = re.compile(r"[-+.]?\d|[yYnN]$")
_KUBERNETES = "pilothouse.kinds.structs."
"""Where Kubernetes' own kinds are, of which nobody makes definitions."""


@click.group(epilog=examples("pilothouse crd generate shop.kinds", "pilothouse crd generate --help"))
def crd() -> None:
    """Make definitions of custom resources."""


@crd.command(
    epilog=examples(
        "pilothouse crd generate shop.kinds",
        "# one kind, with all of its versions, straight to a cluster",
        "pilothouse crd generate shop.kinds:Website | kubectl apply --server-side -f -",
        "# a file that is in no package, and one file for each definition",
        "pilothouse crd generate ./kinds.py --output-dir manifests/",
        "pilothouse crd generate ./kinds.py:Website -o json",
    )
)
@click.argument("module", metavar="MODULE[:CLASS]")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How to write them; several as JSON are a List.",
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each to a file there, named GROUP_PLURAL; it is made where it is missing.",
)
def generate(module: str, output: str, output_dir: Path | None) -> None:
    """Print the definitions of the Resource classes of MODULE, a module's name or the path of a .py file.

    Classes of one group and kind are the versions of one definition. What is above a class, @custom_resource, says
    which is for storage.
    """
    name, _, wanted = module.partition(":")
    made = definitions_of(load_module(name), wanted)
    if output_dir is None:
        click.echo(manifest_text(made, output), nl=False)
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    for each in made:
        path = output_dir / f"{each['spec']['group']}_{each['spec']['names']['plural']}.{output}"
        write_whole(OsFileSystem(), str(path), manifest_text([each], output).encode(), _FILE_MODE)
        click.echo(str(path))


def load_module(name: str) -> ModuleType:
    """Import a module by its name, also from the directory one is in, or by the path of its file.

    Raises CommandError where there is none or where it fails, with its own error.
    """
    if name.endswith(".py") or os.sep in name:
        return _from_file(Path(name))
    if not all(part.isidentifier() for part in name.split(".")):
        raise CommandError(
            f"{name!r} is no name of a module", hint="give one as in `import`, or a path", code=ExitCode.USAGE
        )
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not (name == missing or name.startswith(f"{missing}.")):
            raise _failed(name, error) from error
        raise CommandError(
            f"there is no module {name!r}" + (f": no {missing!r}" if missing != name else ""),
            hint="give its name as in `import`, from the directory that holds it, or the path of the file: ./kinds.py",
            code=ExitCode.NOT_FOUND,
        ) from error
    except Exception as error:
        raise _failed(name, error) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise CommandError(f"there is no file {path}", hint="give a .py file or a module", code=ExitCode.NOT_FOUND)
    name = path.stem if path.stem not in sys.modules else f"pilothouse_crd_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{path} is no Python file", hint="its name ends with .py", code=ExitCode.USAGE)
    module = importlib.util.module_from_spec(spec)
    # What its classes name is looked up there, and its neighbours are imported as where it is run.
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _failed(str(path), error) from error
    return module


def _failed(name: str, error: Exception) -> CommandError:
    return CommandError(
        f"{name} cannot be imported: {type(error).__name__}: {error}", hint="pilothouse --debug shows where"
    )


def definitions_of(module: ModuleType, wanted: str = "") -> list[dict[str, Any]]:
    """Return the definitions of a module's Resource classes, by group and plural. Raises CommandError.

    wanted: the name of one class, whose other versions in the module belong to it.
    """
    kinds = _grouped(_resources(module))
    if wanted:
        chosen = [versions for versions in kinds if any(kind.__name__ == wanted for kind in versions)]
        if not chosen:
            raise _none_called(module, wanted, kinds)
        kinds = chosen
    if not kinds:
        raise CommandError(
            f"{module.__name__} has no Resource classes of its own kinds",
            hint='write class Website(Resource, group="example.com", version="v1", plural="websites"), or import it',
            code=ExitCode.NOT_FOUND,
        )
    try:
        return [definition(*versions) for versions in kinds]
    except DefinitionError as error:
        raise CommandError(str(error), hint="docs/operator-crds.md says what a schema can express") from error


def _resources(module: ModuleType) -> list[Any]:
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Resource)]
    return [kind for kind in dict.fromkeys(found) if kind.plural and not kind.__module__.startswith(_KUBERNETES)]


def _grouped(kinds: Iterable[Any]) -> list[list[Any]]:
    """Bring the versions of each kind together, the most mature first."""
    found: dict[tuple[str, str], list[Any]] = {}
    for kind in kinds:
        found.setdefault((kind.group, kind.gvk[2]), []).append(kind)
    ordered = sorted(found.values(), key=lambda versions: (versions[0].group, versions[0].plural))
    return [sorted(versions, key=lambda kind: _maturity(str(kind.version)), reverse=True) for versions in ordered]


def _maturity(version: str) -> tuple[int, ...]:
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if found is None:
        return (-1,)
    return {None: 2, "beta": 1, "alpha": 0}[found[2]], int(found[1]), int(found[3] or 0)


def _none_called(module: ModuleType, wanted: str, kinds: Sequence[Sequence[Any]]) -> CommandError:
    names = [kind.__name__ for versions in kinds for kind in versions]
    close = difflib.get_close_matches(wanted, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(names) or 'none'}"
    text = f"{module.__name__} has no Resource class {wanted!r}"
    if isinstance(there := vars(module).get(wanted), type):
        hint = f"{there.__name__} is another class; whole objects are subclasses of Resource with group and plural"
    return CommandError(text, hint=hint, code=ExitCode.NOT_FOUND)


def manifest_text(made: Sequence[dict[str, Any]], output: str) -> str:
    """Write objects as YAML documents or as JSON, of which several are a List."""
    if output == "json":
        whole = made[0] if len(made) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(made)}
        return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"
    options: dict[str, Any] = {"Dumper": _Dumper, "sort_keys": False, "allow_unicode": True, "width": 120}
    return "---\n".join(yaml.dump(each, **options) for each in made)


class _Dumper(yaml.SafeDumper):
    """Quotes also those texts that only other programs take for numbers or booleans, and repeats what is said twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _DOUBTFUL.match(text) else None)


_Dumper.add_representer(str, _quoted)
