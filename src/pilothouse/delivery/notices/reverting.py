"""Makes a revert by the real git, in a clone of its own, and pushes it. Doing it twice makes one commit."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.errors import RepositoryError, RevisionError
from pilothouse.delivery.gitops.git import Access, Git
from pilothouse.delivery.gitops.mirrors import checked_path
from pilothouse.delivery.gitops.versions import References, parse_references

from .reverts import TRAILER, Revert, chosen

__all__ = ["Outcome", "Reverter"]

_DEPTH: Final = 100
_HEADS: Final = "refs/heads/"
_AUTHOR: Final = {"user.name": "Pilothouse", "user.email": "pilothouse@localhost", "commit.gpgSign": "false"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. state: Reverted, NotNeeded or Failed, which is not tried again."""

    state: str
    message: str
    branch: str = ""
    commit: str = ""


class Reverter:
    """directory: of clones, which are there only meanwhile. seconds: limit of each run of git."""

    def __init__(self, directory: str, *, seconds: float = 120.0, plain_http: bool = False) -> None:
        self._directory = Path(directory)
        self._git = Git(str(self._directory / "git"), seconds=seconds)
        self._plain_http = plain_http

    async def revert(self, wanted: Revert, access: Access) -> Outcome:
        """Make a revert. Raises RepositoryError and ToolError for what another try may mend."""
        parse_address(wanted.url, plain_http=self._plain_http)
        listed = ["ls-remote", "--symref", "--", wanted.url, "HEAD", "refs/heads/*", "refs/tags/*"]
        there = parse_references(await self._git.run(listed, access=access))
        branch = _branch_of(wanted.revision, there)
        if branch is None:
            text = f"'{wanted.revision}' is no branch, so there is nothing to commit to; revert it where it comes from"
            return Outcome("Failed", text)
        if wanted.mode == "branch" and (commit := there.commits.get(_HEADS + wanted.new_branch)):
            return Outcome("Reverted", f"branch {wanted.new_branch} is there", wanted.new_branch, commit)
        name = hashlib.sha256(f"{wanted.url} {wanted.incident}".encode()).hexdigest()[:32]
        place = self._directory / "reverts" / name
        await asyncio.to_thread(shutil.rmtree, place, True)
        try:
            return await _Clone(self._git, place, wanted, branch, access).revert()
        except RevisionError as error:
            return Outcome("Failed", str(error))
        finally:
            await asyncio.to_thread(shutil.rmtree, place, True)


def _branch_of(revision: str, there: References) -> str | None:
    if revision in {"", "HEAD"}:
        return there.head.removeprefix(_HEADS) if there.head.startswith(_HEADS) else None
    name = revision.removeprefix(_HEADS)
    return name if _HEADS + name in there.commits and f"refs/tags/{name}" not in there.commits else None


class _Clone:
    def __init__(self, git: Git, place: Path, wanted: Revert, branch: str, access: Access) -> None:
        self._git, self._place, self._wanted, self._branch, self._access = git, place, wanted, branch, access
        self._repository = str(place / ".git")

    async def _run(self, *arguments: str, stdin: bytes = b"", network: bool = False) -> str:
        access = self._access if network else None
        printed = await self._git.run(
            arguments, access=access, repository=self._repository, stdin=stdin, config=_AUTHOR
        )
        return printed.decode(errors="replace").strip()

    async def revert(self) -> Outcome:
        await asyncio.to_thread(self._place.mkdir, 0o700, True, True)
        await self._git.run(["init", "--quiet", "--template=", "--", str(self._place)])
        # Runs begin in `/`, which would be the work tree otherwise.
        await self._run("config", "core.worktree", str(self._place))
        head = await self._fetch(f"--depth={_DEPTH}")
        if not await self._has(f"{self._wanted.bad}^"):
            head = await self._fetch("--unshallow")
        if done := await self._done(head):
            return Outcome("Reverted", f"commit {done[:12]} on {self._branch}", self._branch, done)
        if not await self._is_in(self._wanted.bad, head):
            text = f"{self._branch} does not contain {self._wanted.bad[:12]} (any longer)"
            return Outcome("NotNeeded", text, self._branch)
        await self._run("checkout", "--quiet", "--detach", head)
        for commit in await self._commits():
            try:
                await self._revert(commit)
            except RepositoryError:
                text = (
                    f"{commit[:12]} cannot be reverted on {self._branch}: later commits changed the same; do it by hand"
                )
                return Outcome("Failed", text, self._branch)
        tree = await self._run("write-tree")
        if tree == await self._run("rev-parse", f"{head}^{{tree}}"):
            return Outcome("NotNeeded", f"{self._branch} is without it already", self._branch)
        commit = await self._run("commit-tree", tree, "-p", head, "-F", "-", stdin=self._wanted.message.encode())
        target = self._wanted.new_branch if self._wanted.mode == "branch" else self._branch
        await self._run("push", "--quiet", "--", self._wanted.url, f"{commit}:{_HEADS}{target}", network=True)
        return Outcome("Reverted", f"commit {commit[:12]} on {target}", target, commit)

    async def _fetch(self, *depth: str) -> str:
        own = f"+{_HEADS}{self._branch}:refs/pilothouse/branch"
        options = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", *depth]
        await self._run(*options, "--", self._wanted.url, own, network=True)
        return await self._run("rev-parse", "refs/pilothouse/branch")

    async def _has(self, revision: str) -> bool:
        try:
            await self._run("rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}")
        except RepositoryError:
            return not (self._place / ".git" / "shallow").exists()
        return True

    async def _is_in(self, commit: str, head: str) -> bool:
        try:
            await self._run("merge-base", "--is-ancestor", commit, head)
        except RepositoryError:
            return False
        return True

    async def _done(self, head: str) -> str:
        """Return the commit that was made for this incident before, as when nobody heard of its push any more."""
        own = f"{TRAILER}: {self._wanted.incident}"
        found = await self._run("log", f"--max-count={_DEPTH}", "--format=%H", "--fixed-strings", f"--grep={own}", head)
        for commit in found.splitlines():
            body = await self._run("show", "--no-patch", "--format=%B", commit)
            if own in (line.strip() for line in body.splitlines()):
                return commit
        return ""

    async def _commits(self) -> list[str]:
        bad, good = self._wanted.bad, self._wanted.good
        if not good or not await self._is_in(good, bad):
            return [bad]
        path = checked_path(self._wanted.path)
        span = ("rev-list", "--first-parent", f"{good}..{bad}")
        between = (await self._run(*span)).split()
        touching = (await self._run(*span, "--", f":(top,literal){path}")).split() if path else between
        return [*chosen(touching, between, bad)]

    async def _revert(self, commit: str) -> None:
        parents = (await self._run("rev-list", "--parents", "--max-count=1", commit)).split()[1:]
        mainline = ["--mainline", "1"] if len(parents) > 1 else []
        await self._run("revert", "--no-commit", *mainline, commit)
