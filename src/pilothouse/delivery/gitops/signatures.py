"""Signed commits and tags: checked where a project demands it, by git with the keys of the project alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from pilothouse.delivery.resources.applications import AppProject

from .errors import SignatureError, ToolError
from .mirrors import Mirror
from .settings import Settings
from .tools import find_program, run_tool

__all__ = ["ALLOWED_SIGNERS", "Signatures"]

ALLOWED_SIGNERS: Final = "pilothouse.dev/allowed-signers"
"""The annotation of a project with an `allowed_signers` file, see ssh-keygen(1): commits signed by these keys do."""
_MAX_KNOWN: Final = 10_000


class Signatures:
    """Checks commits. Keys of GPG are those of `argocd-gpg-keys-cm`, as in Argo CD."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._good: OrderedDict[tuple[Any, ...], None] = OrderedDict()

    async def check(self, mirror: Mirror, commit: str, project: AppProject) -> None:
        """Raise SignatureError unless a commit, or an annotated tag of it, is signed as its project demands."""
        wanted = tuple(sorted(each.key_id.upper() for each in project.spec.signature_keys if each.key_id))
        signers = (project.metadata.annotations or {}).get(ALLOWED_SIGNERS, "")
        if not wanted and not signers:
            return
        keys = self._settings.config("argocd-gpg-keys-cm")
        place = (mirror.name, commit, wanted, signers, tuple(sorted(keys)))
        if place in self._good:
            return
        problem = await self._problem(mirror, commit, signers, wanted, keys)
        if problem:
            name = project.metadata.name
            raise SignatureError(f"commit {commit[:12]} is not signed as project {name} demands: {problem}")
        self._good[place] = None
        if len(self._good) > _MAX_KNOWN:
            self._good.popitem(last=False)

    async def _problem(
        self, mirror: Mirror, commit: str, signers: str, wanted: tuple[str, ...], keys: Mapping[str, str]
    ) -> str:
        """Return why neither the commit is signed nor an annotated tag that leads to it, an empty text where one is."""
        problems = []
        for ring in self._rings(signers, wanted, keys):
            async with ring as (config, missing):
                if missing:
                    problems.append(missing)
                    continue
                problem = await mirror.verify(commit, config)
                if not problem:
                    return ""
                problems.append(problem)
                for tag in await mirror.tags_of(commit):
                    problem = await mirror.verify(tag, config, tag=True)
                    if not problem:
                        return ""
                    problems.append(f"tag {tag[:12]}: {problem}")
        return "; ".join(problems)

    def _rings(
        self, signers: str, wanted: tuple[str, ...], keys: Mapping[str, str]
    ) -> Iterator[contextlib.AbstractAsyncContextManager[tuple[dict[str, str], str]]]:
        if signers:
            yield _of_ssh(signers)
        if wanted:
            yield _of_gpg(wanted, keys)


@contextlib.asynccontextmanager
async def _of_ssh(signers: str) -> AsyncIterator[tuple[dict[str, str], str]]:
    """Give the settings of git for signatures of ssh, and why there are none."""
    with tempfile.TemporaryDirectory(prefix="pilothouse-signers-") as place:
        path = _write(f"{place}/allowed", signers.rstrip("\n") + "\n", 0o600)
        yield {"gpg.ssh.allowedSignersFile": path, "gpg.format": "ssh", "gpg.program": "false"}, ""


@contextlib.asynccontextmanager
async def _of_gpg(wanted: tuple[str, ...], keys: Mapping[str, str]) -> AsyncIterator[tuple[dict[str, str], str]]:
    """Give the settings of git for signatures of GnuPG, and why there are none."""
    program = find_program("gpg")
    if program is None:
        raise ToolError("signed commits are demanded, and gpg is not there; install gnupg")
    known = {name.upper(): text for name, text in keys.items()}
    chosen = [text for key in wanted for name, text in known.items() if name.endswith(key) or key.endswith(name)]
    if not chosen:
        yield {}, f"none of the keys {', '.join(wanted)} is in argocd-gpg-keys-cm"
        return
    with tempfile.TemporaryDirectory(prefix="pilothouse-gpg-") as home:
        words = [program, "--homedir", home, "--batch", "--quiet", "--import"]
        await run_tool("gpg", words, home=home, cwd=home, stdin="\n".join(chosen).encode())
        # Only keys of this ring count, and all in it are trusted; agents are of no use here.
        text = f'#!/bin/sh\nexec {program} --homedir {home} --batch --trust-model always "$@"\n'
        script = _write(f"{home}/verify", text, 0o700)
        yield {"gpg.program": script, "gpg.ssh.program": "false"}, ""


def _write(path: str, text: str, mode: int) -> str:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    return path
