"""`pilothouse operator new`: a whole operator project that works at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from pilothouse.foundation.processes import ProcessError, inherit, run
from pilothouse.foundation.terminal import CommandError, ExitCode, examples

from .scaffold import Project, ProjectError, files_of

__all__ = ["new"]

_SECONDS: Final = 60.0


@click.command(
    epilog=examples(
        "pilothouse operator new website-operator",
        "pilothouse operator new fleet --kind Ship --group sea.example.com --version v1beta1",
        "# a plural that does not just end in s, and another place",
        "pilothouse operator new fleet --kind Policy --plural policies --directory ~/src/fleet",
    )
)
@click.argument("name", metavar="NAME")
@click.option("--kind", default="", metavar="KIND", help="What it is for, in CamelCase.  [default: NAME's]")
@click.option("--plural", default="", metavar="PLURAL", help="Of the kind, in lower case.  [default: KIND's]")
@click.option("--group", default="example.com", show_default=True, metavar="GROUP", help="A domain of yours.")
@click.option("--version", default="v1alpha1", show_default=True, metavar="VERSION", help="Of the kind's API.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where to put it; it must be empty or not be there.  [default: NAME]",
)
@click.option("--force", is_flag=True, help="Put it there anyway; what was there is kept in DIR.old.")
def new(  # a project has so many names
    name: str, kind: str, plural: str, group: str, version: str, directory: Path | None, force: bool
) -> None:
    """Make an operator project called NAME: a kind, its reconciler, tests that pass, and manifests that install it.

    It stands complete or not at all. NAME is the name of the project, of its package with '_' for '-', and of what is
    installed in a cluster.
    """
    try:
        project = Project(name=name, kind=kind, plural=plural, group=group, version=version)
    except ProjectError as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    target = (directory or Path(name)).expanduser().absolute()
    kept = _make_room(target, force=force)
    try:
        with _beside(target) as draft:
            for path, text in files_of(project).items():
                place = draft / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text, encoding="utf-8")
            (draft / project.package / "py.typed").touch()
            _write_manifests(project, draft)
            if kept is not None:
                target.rename(kept)
            draft.rename(target)
    except OSError as error:
        raise CommandError(f"{target}: cannot be written: {error.strerror or error}") from error
    _tell(project, target, kept)


def _make_room(target: Path, *, force: bool) -> Path | None:
    """Check that a project can be put there; return where to keep what is there now, None where nothing is."""
    if not target.parent.is_dir():
        raise CommandError(
            f"{target}: there is no directory {target.parent}", hint="make it first", code=ExitCode.NOT_FOUND
        )
    if target == Path.cwd():
        raise CommandError(
            f"{target} is the current directory, which cannot be put in place as a whole",
            hint="run it in the directory above, or say --directory NAME",
            code=ExitCode.USAGE,
        )
    if not os.path.lexists(target):
        return None
    if target.is_dir() and not target.is_symlink() and not any(target.iterdir()):
        return None
    if not force:
        what = "is not empty" if target.is_dir() else "is a file"
        hint = f"choose another --directory, or say --force, which keeps what is there as {target.name}.old"
        raise CommandError(f"{target} {what}; nothing was written", hint=hint, code=ExitCode.CONFLICT)
    kept = target.with_name(f"{target.name}.old")
    if os.path.lexists(kept):
        raise CommandError(f"{kept} is there already", hint="remove or rename it first", code=ExitCode.CONFLICT)
    return kept


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a directory beside the target, on the same file system; what is left of it at the end is removed."""
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o777 & ~umask)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_manifests(project: Project, draft: Path) -> None:
    """Have a program of its own import the new package, as a reader would: this one must not keep it."""
    image = f"registry.example.com/{project.name}:0.1.0"
    command = [sys.executable, "-m", "pilothouse", "operator", "manifests", project.package]
    command += ["--image", image, "--output-dir", "manifests"]
    environment = inherit("PYTHONPATH", "PYTHONWARNINGS", "VIRTUAL_ENV", PYTHONDONTWRITEBYTECODE="1")
    try:
        asyncio.run(run(command, env=environment, cwd=str(draft), timeout=_SECONDS))
    except ProcessError as error:
        raise CommandError(f"{project.name}: no manifests could be made, so nothing was written: {error}") from error


def _tell(project: Project, target: Path, kept: Path | None) -> None:
    shown = os.path.relpath(target)
    if kept is not None:
        click.echo(f"what was there is in {os.path.relpath(kept)}")
    click.echo(
        f"{shown}: an operator for {project.plural}.{project.group}\n\n"
        f"  cd {shown}\n"
        f"  make test lint     # in a virtual environment of its own\n"
        f"  make run           # in the cluster of your kubeconfig\n\n"
        f"Begin with {project.package}/kinds.py and {project.package}/reconciler.py; README.md tells the rest."
    )
