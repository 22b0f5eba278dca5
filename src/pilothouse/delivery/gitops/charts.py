"""Charts of chart repositories, pulled by the real `helm`: each version once, ranges of versions now and then."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
from collections import OrderedDict
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pilothouse.foundation.clock import Clock

from .addresses import normalised
from .chartrepos import ChartRemote, command_of, introduce, is_registry
from .errors import ManifestError, RepositoryError, ToolError
from .git import Access
from .helm import MISSING
from .manifests import read_documents
from .tools import find_program, run_tool
from .versions import Version

__all__ = ["Charts", "PulledChart"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}")
_VERSION: Final = re.compile(r"[A-Za-z0-9^~<>=*v][A-Za-z0-9.^~<>=|, *+-]{0,100}")
_MAX_KEPT: Final = 50
_AGAIN_SECONDS: Final = 120.0


class PulledChart(NamedTuple):
    """A chart on the disk. version: the one that was found."""

    directory: str
    version: str


class _Known(NamedTuple):
    chart: PulledChart
    at: float
    exact: bool


class Charts:
    """Pulls charts. directory: where they are, ours alone. programs: where else to look for helm."""

    def __init__(self, directory: str, clock: Clock, *, programs: str = "", plain_http: bool = False) -> None:
        self._directory = directory
        self._clock = clock
        self._programs = programs
        self._plain_http = plain_http
        self._known: OrderedDict[tuple[str, str, str], _Known] = OrderedDict()
        self._lock = asyncio.Lock()
        self.pulls = 0
        """Charts that were pulled."""

    async def pull(self, url: str, chart: str, version: str, access: Access) -> PulledChart:
        """Return a chart. version: one, a range, or empty for the newest. Raises RepositoryError and ToolError."""
        if not _NAME.fullmatch(chart) or ".." in chart:
            raise RepositoryError(f"chart: {chart[:100]!r} is no name of a chart")
        if version and not _VERSION.fullmatch(version):
            raise RepositoryError(f"targetRevision: {version[:100]!r} is no version of a chart, and no range of them")
        place = (f"{normalised(url)}#{access.scope}", chart, version)
        async with self._lock:
            known = self._known.get(place)
            if known is None or not (known.exact or self._clock.monotonic() - known.at < _AGAIN_SECONDS):
                found = await self._pulled(url, chart, version, access)
                exact = Version.of(version) is not None and version.count(".") == 2
                known = self._known[place] = _Known(found, self._clock.monotonic(), exact)
            self._known.move_to_end(place)
            while len(self._known) > _MAX_KEPT:
                await asyncio.to_thread(self._drop, self._known.popitem(last=False)[1].chart)
        return known.chart

    def _drop(self, chart: PulledChart) -> None:
        if all(each.chart.directory != chart.directory for each in self._known.values()):
            shutil.rmtree(os.path.dirname(chart.directory), ignore_errors=True)

    async def _pulled(self, url: str, chart: str, version: str, access: Access) -> PulledChart:
        program = find_program("helm", path=self._programs)
        if program is None:
            raise ToolError(MISSING)
        self.pulls += 1
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pull-", dir=self._directory) as home:
            target = os.path.join(home, "chart")
            words = ["--untar", "--untardir", target, *(["--version", version] if version else [])]

            async def helm(*arguments: str, stdin: bytes = b"") -> bytes:
                label = f"{command_of(arguments)}, {chart} of {url}"
                return await run_tool(label, [program, *arguments], home=home, cwd=home, stdin=stdin)

            remote = ChartRemote(url, access)
            more = await introduce(helm, home, [remote], plain_http=self._plain_http)
            if is_registry(url):
                await helm("pull", f"oci://{url.removeprefix('oci://').rstrip('/')}/{chart}", *words, *more)
            else:
                await helm("pull", f"{remote.name}/{chart}", *words)
            return await asyncio.to_thread(self._settled, target, url, chart)

    def _settled(self, target: str, url: str, chart: str) -> PulledChart:
        """Put a pulled chart where it stays, named by what it is."""
        (name,) = os.listdir(target)
        with open(os.path.join(target, name, "Chart.yaml"), "rb") as file:
            documents = [value for _, value in read_documents(f"{chart}/Chart.yaml", file.read())]
        version = documents[0].get("version") if documents and isinstance(documents[0], dict) else None
        if not isinstance(version, str):
            raise ManifestError(f"{chart}/Chart.yaml", "it has no version")
        host = urlsplit(url).hostname or ""
        digest = hashlib.sha256(f"{normalised(url)} {chart} {version} {host}".encode()).hexdigest()[:32]
        place = os.path.join(self._directory, digest)
        if not os.path.isdir(place):  # a version is always the same, and somebody may be rendering it
            os.rename(target, place)
        return PulledChart(os.path.join(place, name), version)
