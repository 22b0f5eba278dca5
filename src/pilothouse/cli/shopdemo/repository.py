"""The shop as a git repository of its own: its manifests of `examples/shop`, and its versions as commits."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pilothouse.foundation.processes import ProcessNotStarted, inherit, run
from pilothouse.foundation.terminal import CommandError

__all__ = ["VERSIONS", "Repository", "Version", "application", "place_of_shop"]

_PLACES: Final = (
    Path(__file__).parents[1] / "shop",  # installed
    Path(__file__).parents[4] / "examples" / "shop",  # a checkout
)
_FRONT: Final = "manifests/50-front.yaml"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PYTHON: Final = "python3"
_BRANCH: Final = "main"
_AUTHOR: Final = {"NAME": "Ada of the shop", "EMAIL": "ada@shop.example"}


class Version(NamedTuple):
    """What a commit changes of the front's variables. fault: what is wrong with it, in words; empty for nothing."""

    message: str
    values: Mapping[str, str]
    fault: str = ""


_LOOK: Final = {"HEADLINE": "The harbour shop: autumn sale", "COLOUR": "#b45309"}
_WELL: Final = {"FAIL_PERCENT": "0", "SLOW_PERCENT": "0"}
VERSIONS: Final[Mapping[int, Version]] = {
    2: Version("The autumn sale", {"VERSION": "2", **_LOOK}),
    3: Version("Prices come from the new service", {"VERSION": "3", **_WELL, "FAIL_PERCENT": "2"},
               "2 % of its answers fail"),
    4: Version("Recommendations on each page", {"VERSION": "4", **_WELL, "SLOW_PERCENT": "10"},
               "10 % of its answers take 1.2 s"),
}  # fmt: skip
"""By number; the first is the example as it stands."""


def place_of_shop() -> Path:
    """Return the directory of the example. Raises CommandError."""
    place = next((each for each in _PLACES if each.is_dir()), None)
    if place is None:
        raise CommandError("the example is not in this installation", hint=f"wanted {_PLACES[0]}")
    return place


class Repository:
    """A repository with a work tree, at a directory that is made. What git refuses is raised as ProcessError."""

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory

    @property
    def url(self) -> str:
        """What an Application calls it."""
        return self.directory.as_uri()

    async def begin(self) -> str:
        """Make it with version 1; return the commit. Where pods would not find `python3` they get this program's."""
        shutil.copytree(place_of_shop() / "manifests", self.directory / "manifests")
        if shutil.which(_PYTHON, path=_PATH) is None:
            self._name_python()
        await self._git("init", "--quiet", f"--initial-branch={_BRANCH}")
        # What pushes to it moves the work tree too.
        await self._git("config", "receive.denyCurrentBranch", "updateInstead")
        return await self._commit("The shop")

    def _name_python(self) -> None:
        for file in (self.directory / "manifests").glob("*.yaml"):
            wanted = f"command: [{os.path.realpath(sys.executable)},"
            file.write_text(file.read_text("utf-8").replace(f"command: [{_PYTHON},", wanted), "utf-8")

    async def commit(self, number: int) -> str:
        """Make a version of VERSIONS and return the commit. Raises CommandError where variables are missing."""
        version = VERSIONS[number]
        file = self.directory / _FRONT
        text = file.read_text("utf-8")
        for name, value in version.values.items():
            text, count = re.subn(rf'(name: {name}, value: )"[^"]*"', rf'\g<1>"{value}"', text)
            if count != 1:
                raise CommandError(f"{_FRONT} has {count} variables {name}; want one")
        file.write_text(text, "utf-8")
        return await self._commit(version.message)

    async def subjects(self) -> list[tuple[str, str]]:
        """Return the commits with their subjects, the newest first."""
        lines = (await self._git("log", "--format=%H %s", _BRANCH)).splitlines()
        return [(commit, subject) for commit, _, subject in (each.partition(" ") for each in lines)]

    async def _commit(self, message: str) -> str:
        await self._git("add", "--all")
        await self._git("commit", "--quiet", f"--message={message}")
        return await self._git("rev-parse", "HEAD")

    async def _git(self, *arguments: str) -> str:
        who = {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in _AUTHOR.items()}
        env = inherit(**who, GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=os.devnull)
        try:
            done = await run(["git", *arguments], env=env, cwd=str(self.directory))
        except ProcessNotStarted as error:
            raise CommandError("the demo wants the program git", hint=str(error)) from error
        return done.stdout.decode(errors="replace").strip()


def application(url: str) -> dict[str, Any]:
    """Return the Application of the example for a repository."""
    import yaml

    made: dict[str, Any] = yaml.safe_load((place_of_shop() / "application.yaml").read_text("utf-8"))
    made["spec"]["source"]["repoURL"] = url
    return made
