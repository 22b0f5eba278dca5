"""A bare mirror of one repository: shallow, one fetch for each commit that somebody wants, read by object."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger

from .addresses import Address, normalised
from .batching import Batch
from .errors import RepositoryError, RevisionError
from .git import Access, Git
from .versions import References, parse_references

__all__ = ["Entry", "Limits", "Mirror", "Named", "checked_path"]

_log = get_logger("pilothouse.delivery.gitops")
_OWN: Final = "refs/pilothouse/"
_MAX_KNOWN: Final = 50_000
_LOOK_SECONDS: Final = 0.5
_MAX_TAGS: Final = 10
_FORMAT: Final = "--batch-check=%(objecttype) %(objectname) %(objectsize)"


class Limits(NamedTuple):
    """What a repository may cost. mirror_bytes: on disk. entries: of one listed directory. commits: kept."""

    mirror_bytes: int = 4 << 30
    entries: int = 50_000
    file_bytes: int = 10 << 20
    source_bytes: int = 100 << 20
    commits: int = 30


class Named(NamedTuple):
    """An object of git: what a path of a commit is. kind: tree, blob or commit (a submodule)."""

    kind: str
    oid: str
    size: int


class _TooLarge(RepositoryError):
    """A repository is more than may be kept."""


class Entry(NamedTuple):
    """A file, link or submodule of a directory. mode: as git writes it. path: from that directory on."""

    path: str
    mode: str
    oid: str
    size: int

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link; its target is what the blob holds."""
        return self.mode == "120000"

    @property
    def is_file(self) -> bool:
        """Whether it is a file."""
        return self.mode.startswith("100")

    @property
    def is_submodule(self) -> bool:
        """Whether it is a commit of another repository."""
        return self.mode == "160000"


def checked_path(path: str) -> str:
    """Return a path of a repository without `.` and slashes at its ends, the root as an empty text.

    Raises RevisionError for one that leaves the repository or has what no path may have.
    """
    if any(ord(each) < 32 for each in path) or "\\" in path:
        raise RevisionError(f"path {path!r}: control characters and backslashes are not allowed")
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise RevisionError(f"path {path!r} leaves the repository")
    if any(part.lower() == ".git" for part in parts):
        raise RevisionError(f"path {path!r}: .git is no part of the repository")
    return "/".join(parts)


class Mirror:
    """One repository. access: what opens it, asked at each run, for it may change."""

    def __init__(
        self,
        address: Address,
        directory: str,
        git: Git,
        clock: Clock,
        limits: Limits,
        access: Access | None = None,
        key: str = "",
    ) -> None:
        self.address: Final = address
        self.access = access
        self.key: Final = key or normalised(address.url)
        self.name: Final = hashlib.sha256(self.key.encode()).hexdigest()[:32]
        """The same for addresses that mean the same repository."""
        self.path: Final = os.path.join(directory, f"{self.name}.git")
        self.fetches = 0
        """Fetches made."""
        self.polls = 0
        """Times that its references were asked for."""
        self.references = References()
        self._asked = float("-inf")
        self._error: RepositoryError | None = None
        self._git = git
        self._clock = clock
        self._limits = limits
        self._lock = asyncio.Lock()
        self._asking: asyncio.Task[References] | None = None
        self._late = False
        self._have: OrderedDict[str, None] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], Named | None] = OrderedDict()
        self._names: Batch[tuple[str, str], Named] = Batch(self._look_up)
        self._blobs: Batch[tuple[str, int], bytes] = Batch(self._read, limit=512)

    # Over the network

    async def look(self, max_age: float) -> References:
        """Return the references, asked for anew where those known are older than max_age seconds.

        What fails is not tried again before max_age has passed either. Raises RepositoryError.
        """
        if self._clock.monotonic() - self._asked < max_age:
            if self._error is not None:
                raise self._error
            return self.references
        if self._asking is not None and self._late:
            # What is being answered may be from before the news.
            await asyncio.wait([self._asking])
        if self._asking is None:
            self._late = False
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(self._answered)
        return await asyncio.shield(self._asking)

    @property
    def failing(self) -> bool:
        """Whether it did not answer when it was last asked."""
        return self._error is not None

    def stale(self) -> None:
        """Have the next look ask anew, even where it is being asked now."""
        self._asked = float("-inf")
        self._late = self._asking is not None

    def _answered(self, task: asyncio.Task[References]) -> None:
        if self._asking is task:
            self._asking = None
        if not task.cancelled():
            task.exception()  # whoever waited has it

    async def _ask(self) -> References:
        self.polls += 1
        try:
            printed = await self._git.run(
                ["ls-remote", "--symref", "--", self.address.url, "HEAD", "refs/heads/*", "refs/tags/*"],
                access=self.access or Access(),
                max_output=64 << 20,
            )
            self.references, self._error = parse_references(printed), None
        except RepositoryError as error:
            self._error = error
            raise
        finally:
            self._asked = self._clock.monotonic()
        return self.references

    async def has(self, commit: str) -> bool:
        """Whether a commit is there without asking anybody."""
        if commit in self._have:
            return True
        async with self._lock:
            await self._prepare()
            return await self._has(commit)

    async def ensure(self, commit: str) -> None:
        """Have a commit with all its files. Raises RepositoryError, and RevisionError where it is not there."""
        if commit in self._have:
            self._have.move_to_end(commit)
            return
        async with self._lock:
            if commit in self._have:
                return
            await self._prepare()
            if not await self._has(commit):
                try:
                    await self._fetch(commit)
                except _TooLarge:
                    await asyncio.to_thread(shutil.rmtree, self.path, True)
                    raise
            self._have[commit] = None
            await self._tidy()

    async def _prepare(self) -> None:
        if not _usable(self.path):
            await self._git.run(["init", "--quiet", "--bare", "--template=", "--", self.path])

    async def _has(self, commit: str) -> bool:
        asked = f"{commit}^{{tree}}\n".encode()
        printed = await self._git.run(["cat-file", "--batch-check"], repository=self.path, stdin=asked)
        return not printed.rstrip().endswith(b"missing")

    async def _fetch(self, commit: str) -> None:
        self.fetches += 1
        own = f"+{commit}:{_OWN}{commit}"
        try:
            await self._received("--depth=1", "--", self.address.url, own)
        except _TooLarge:
            raise
        except RepositoryError as error:
            # Some servers give only what a reference stands for.
            _log.info("a commit alone is not given; fetching all", repository=self.address.url, reason=str(error))
            everything = ["+refs/heads/*:refs/remotes/*", "+refs/tags/*:refs/tags/*"]
            unshallow = ["--unshallow"] if _is_shallow(self.path) else []
            await self._received(*unshallow, "--", self.address.url, *everything)
            if not await self._has(commit):
                raise RevisionError(f"commit {commit}: the repository does not have it (any longer)") from error
            await self._git.run(["update-ref", f"{_OWN}{commit}", commit], repository=self.path)
        await self._check_size()

    async def _received(self, *words: str) -> None:
        """Fetch, and end it once it is more than a mirror may have."""
        options = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--force"]
        work = self._git.run([*options, *words], access=self.access, repository=self.path)
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=_LOOK_SECONDS))[0]:
                await self._check_size()
            task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _check_size(self) -> None:
        size = await asyncio.to_thread(_size_of, self.path)
        if size > self._limits.mirror_bytes:
            self._have.clear()
            raise _TooLarge(f"the repository takes {size} bytes; at most {self._limits.mirror_bytes} are allowed")

    async def _tidy(self) -> None:
        """Let go of the commits that were used longest ago; now and then also of their objects."""
        old = [self._have.popitem(last=False)[0] for _ in range(len(self._have) - self._limits.commits)]
        if old:
            points = [f"--points-at={commit}" for commit in old]
            listing = ["for-each-ref", *points, "--format=%(refname)", f"{_OWN}tags/"]
            tags = (await self._git.run(listing, repository=self.path)).decode().split()
            text = "".join(f"delete {each}\n" for each in [*(f"{_OWN}{commit}" for commit in old), *tags])
            await self._git.run(["update-ref", "--stdin"], repository=self.path, stdin=text.encode())
            if self.fetches % self._limits.commits == 0:
                await self._git.run(["gc", "--quiet", "--prune=now"], repository=self.path)

    # What is there

    async def named(self, commit: str, paths: Iterable[str]) -> dict[str, Named | None]:
        """Return what each path of a commit is, None for what is not there. Raises RevisionError for a wrong path."""
        wanted = {path: (commit, checked_path(path)) for path in paths}
        unknown = [key for key in wanted.values() if key not in self._known]
        if unknown:
            answers = await self._names.ask(unknown)
            for key in unknown:  # what a path of a commit is never changes
                self._known[key] = answers.get(key)
        found = {path: self._known[key] for path, key in wanted.items()}
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return found

    async def entries(self, tree: str, *, recurse: bool = True) -> list[Entry]:
        """Return the files, links and submodules of a directory. Raises RepositoryError for too many."""
        command = ["ls-tree", "-z", "-l", "--full-tree", *(["-r"] if recurse else []), tree]
        printed = await self._git.run(command, repository=self.path)
        found = [_entry(line) for line in printed.split(b"\0") if line]
        if len(found) > self._limits.entries:
            raise RepositoryError(f"a directory has {len(found)} files; at most {self._limits.entries} are allowed")
        return [each for each in found if each.mode != "040000"]

    async def blobs(self, wanted: Sequence[Entry]) -> dict[str, bytes]:
        """Return what files hold, by object. Raises RepositoryError where it is too much."""
        total = sum(each.size for each in wanted)
        if total > self._limits.source_bytes:
            raise RepositoryError(f"{len(wanted)} files have {total} bytes; at most {self._limits.source_bytes} may be")
        answers = await self._blobs.ask([(each.oid, each.size) for each in wanted])
        return {oid: data for (oid, _), data in answers.items()}

    async def _look_up(self, keys: list[tuple[str, str]]) -> Mapping[tuple[str, str], Named]:
        lines = [f"{commit}:{path}" if path else f"{commit}^{{tree}}" for commit, path in keys]
        stdin = "".join(f"{line}\n" for line in lines).encode()
        printed = await self._git.run(["cat-file", _FORMAT], repository=self.path, stdin=stdin)
        found = {}
        for key, line in zip(keys, printed.decode(errors="replace").splitlines(), strict=True):
            kind, _, rest = line.partition(" ")
            oid, _, size = rest.partition(" ")
            if kind in {"tree", "blob", "commit"} and size.isdigit():
                found[key] = Named(kind, oid, int(size))
        return found

    async def _read(self, keys: list[tuple[str, int]]) -> Mapping[tuple[str, int], bytes]:
        stdin = "".join(f"{oid}\n" for oid, _ in keys).encode()
        most = sum(size + 100 for _, size in keys)
        printed = await self._git.run(["cat-file", "--batch"], repository=self.path, stdin=stdin, max_output=most)
        found, at = {}, 0
        for key in keys:
            end = printed.index(b"\n", at)
            head = printed[at:end].split(b" ")
            if len(head) != 3 or head[1] != b"blob":
                raise RepositoryError(f"object {key[0]}: it is missing from the mirror")
            at = end + 1 + int(head[2])
            found[key] = printed[end + 1 : at]
            at += 1
        return found

    async def commit(self, commit: str) -> bytes:
        """Return the text of a commit that is there: head and message. Raises RepositoryError."""
        return await self._git.run(["cat-file", "commit", commit], repository=self.path)

    async def verify(self, oid: str, config: Mapping[str, str], *, tag: bool = False) -> str:
        """Return why a signature does not hold by these settings of git, an empty text where it does.

        tag: it is that of an annotated tag, otherwise that of a commit.
        """
        command = "verify-tag" if tag else "verify-commit"
        try:
            await self._git.run([command, oid], repository=self.path, config=config)
        except RepositoryError as error:
            why = str(error).removeprefix(f"git {command}: ").strip()
            return "there is no signature" if not why or why.startswith("exit status") else why
        return ""

    async def tags_of(self, commit: str) -> list[str]:
        """Return the annotated tags that lead to a commit, also those seen before where nobody answers now."""
        wanted = [name for name in self.references.tags if self.references.commits.get(name) == commit][:_MAX_TAGS]
        named = {name: f"{_OWN}tags/{self.references.tags[name]}" for name in wanted}
        listing = ["for-each-ref", f"--points-at={commit}", "--format=%(objectname)", f"{_OWN}tags/"]
        async with self._lock:
            known = (await self._git.run(listing, repository=self.path)).decode().split()
            missing = {name: own for name, own in named.items() if own.rpartition("/")[2] not in known}
            if missing:
                with contextlib.suppress(RepositoryError):
                    await self._received(
                        "--depth=1", "--", self.address.url, *(f"+{name}:{own}" for name, own in missing.items())
                    )
                known = (await self._git.run(listing, repository=self.path)).decode().split()
        return known[:_MAX_TAGS]

    async def forget(self) -> None:
        """Remove the mirror from the disk; the next use makes it anew."""
        async with self._lock:
            self._have.clear()
            self._known.clear()
            await asyncio.to_thread(shutil.rmtree, self.path, True)


def _entry(line: bytes) -> Entry:
    head, _, path = line.partition(b"\t")
    mode, _, oid, size = head.decode().split()
    return Entry(path.decode(errors="surrogateescape"), mode, oid, int(size) if size.isdigit() else 0)


def _usable(path: str) -> bool:
    """Whether there is a mirror; what a fetch that was killed left is tidied up, as nobody else works here."""
    if not os.path.exists(os.path.join(path, "HEAD")):
        shutil.rmtree(path, ignore_errors=True)
        return False
    for found in Path(path).glob("*.lock"):
        found.unlink(missing_ok=True)
    return True


def _is_shallow(path: str) -> bool:
    return os.path.exists(os.path.join(path, "shallow"))


def _size_of(directory: str) -> int:
    total = 0
    for root, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total
