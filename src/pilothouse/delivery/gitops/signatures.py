"""Signed commits: checked where a project demands it, by git with the keys of the project alone."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
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
        """Raise SignatureError unless a commit is signed as its project demands."""
        wanted = tuple(sorted(each.key_id.upper() for each in project.spec.signature_keys if each.key_id))
        signers = (project.metadata.annotations or {}).get(ALLOWED_SIGNERS, "")
        if not wanted and not signers:
            return
        keys = self._settings.config("argocd-gpg-keys-cm")
        place = (mirror.name, commit, wanted, signers, tuple(sorted(keys)))
        if place in self._good:
            return
        name = project.metadata.name
        problems = []
        if signers:
            problem = await self._ssh(mirror, commit, signers)
            problems.append(problem)
        if wanted and not (problems and not problems[0]):
            problems.append(await self._gpg(mirror, commit, wanted, keys))
        if all(problems):
            raise SignatureError(f"commit {commit[:12]} is not signed as project {name} demands: {'; '.join(problems)}")
        self._good[place] = None
        if len(self._good) > _MAX_KNOWN:
            self._good.popitem(last=False)

    async def _ssh(self, mirror: Mirror, commit: str, signers: str) -> str:
        with tempfile.TemporaryDirectory(prefix="pilothouse-signers-") as place:
            path = _write(f"{place}/allowed", signers.rstrip("\n") + "\n", 0o600)
            config = {"gpg.ssh.allowedSignersFile": path, "gpg.format": "ssh", "gpg.program": "false"}
            return await mirror.verify(commit, config)

    async def _gpg(self, mirror: Mirror, commit: str, wanted: tuple[str, ...], keys: Mapping[str, str]) -> str:
        program = find_program("gpg")
        if program is None:
            raise ToolError("signed commits are demanded, and gpg is not there; install gnupg")
        known = {name.upper(): text for name, text in keys.items()}
        chosen = [text for key in wanted for name, text in known.items() if name.endswith(key) or key.endswith(name)]
        if not chosen:
            return f"none of the keys {', '.join(wanted)} is in argocd-gpg-keys-cm"
        with tempfile.TemporaryDirectory(prefix="pilothouse-gpg-") as home:
            words = [program, "--homedir", home, "--batch", "--quiet", "--import"]
            await run_tool("gpg", words, home=home, cwd=home, stdin="\n".join(chosen).encode())
            # Only keys of this ring count, and all in it are trusted; agents are of no use here.
            text = f'#!/bin/sh\nexec {program} --homedir {home} --batch --trust-model always "$@"\n'
            script = _write(f"{home}/verify", text, 0o700)
            return await mirror.verify(commit, {"gpg.program": script, "gpg.ssh.program": "false"})


def _write(path: str, text: str, mode: int) -> str:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    return path
