"""From a source to the objects that there shall be, worked out again only where what it is made of has changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from pilothouse.delivery.resources.applications import Source, SourceDirectory, SourceHelm, SourceKustomize
from pilothouse.kinds.structs import to_dict

from .chartrepos import ChartRemote
from .charts import PulledChart
from .directory import read_directory
from .errors import ManifestError, RevisionError, ToolError
from .extracting import extract
from .git import Access
from .helm import Chart, ReleaseFacts, chart_files, render_helm, values_within
from .kustomize import NAMES, closure_of, components_of, render_kustomize
from .manifests import Manifest
from .mirrors import Limits, Mirror, checked_path

__all__ = ["At", "Pulled", "Rendered", "Renderer"]

SLOW_SECONDS: Final = 5.0
_REST_SECONDS: Final = 600.0
_MAX_SLOW: Final = 1_000
_encoder: Final = msgspec.json.Encoder(order="sorted")


class At(NamedTuple):
    """A commit of a mirror. problem: why it may not be the newest, where that is so."""

    mirror: Mirror
    commit: str
    problem: str = ""


class Pulled(NamedTuple):
    """A chart of a chart repository. commit: its version, which stands where a commit does."""

    chart: PulledChart
    commit: str
    problem: str = ""


class Written(NamedTuple):
    """A rendered object: where it stands, and its JSON with sorted keys."""

    file: str
    document: int
    data: bytes


class Rendered(NamedTuple):
    """What a source gives. kind: Directory, Kustomize or Helm. digest: of all that it was made of."""

    kind: str
    digest: bytes
    objects: tuple[Written, ...]


def _nothing(url: str) -> Access:
    del url
    return Access()


class Renderer:
    """Renders sources. max_bytes: of rendered objects that are kept. programs: where else to look for programs.

    plain_http: also for charts of other machines.

    The key of what is kept is the hash of the git trees that went in, not the commit: a change elsewhere in the
    repository costs a look-up.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        max_bytes: int = 64 << 20,
        programs: str = "",
        plain_http: bool = False,
    ) -> None:
        self.limits: Final = limits or Limits()
        self.renders = 0
        """Sources that were rendered."""
        self.reused = 0
        """Sources of which what was rendered before still holds."""
        self._programs = programs
        self._plain_http = plain_http
        self._max = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, Rendered] = OrderedDict()
        self._slow: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    async def render(
        self,
        source: Source,
        at: At,
        facts: ReleaseFacts,
        refs: Mapping[str, At],
        opens: Callable[[str], Access] = _nothing,
    ) -> Rendered:
        """Return the objects of a source. refs: other sources, whose values files it may use.

        opens: gives what opens a repository of charts, by its address, or raises. Raises DeliveryError.
        """
        path = checked_path(source.path)
        named = (await at.mirror.named(at.commit, [path]))[path]
        if named is None:
            raise RevisionError(await _missing(source.path, path, at))
        if named.kind != "tree":
            raise RevisionError(f"path {source.path!r} is no directory")
        kind = await self._kind(source, at, path)
        if kind == "Directory":
            options = source.directory or SourceDirectory()
            digest = _digest(at.mirror.name, kind, path, named.oid, to_dict(options))
            return self._remembered(digest) or self._keep(
                kind, digest, await read_directory(at.mirror, path, named.oid, options, self.limits)
            )
        if kind == "Kustomize":
            return await self._kustomize(source.kustomize or SourceKustomize(), at, path)
        return await self._helm(source.helm or SourceHelm(), at, path, facts, refs, opens)

    def forget(self) -> None:
        """Render everything anew."""
        self._kept.clear()
        self._slow.clear()
        self._bytes = 0

    async def _kind(self, source: Source, at: At, path: str) -> str:
        if source.plugin is not None:
            raise ManifestError(path or ".", "config management plugins are not run here; commit what they give")
        for name in ("helm", "kustomize", "directory"):
            if getattr(source, name) is not None:
                return name.capitalize()
        base = f"{path}/" if path else ""
        found = await at.mirror.named(at.commit, [f"{base}{name}" for name in ("Chart.yaml", *NAMES)])
        if found[f"{base}Chart.yaml"] is not None:
            return "Helm"
        return "Kustomize" if any(found[f"{base}{name}"] is not None for name in NAMES) else "Directory"

    async def _kustomize(self, options: SourceKustomize, at: At, path: str) -> Rendered:
        components = await components_of(at.mirror, at.commit, path, options)
        directories = await closure_of(at.mirror, at.commit, path, components)
        digest = await self._digest_of("Kustomize", at, directories, [path, to_dict(options), components])
        known = self._remembered(digest)
        if known is not None:
            return known
        with self._trying(digest), tempfile.TemporaryDirectory(prefix="pilothouse-render-") as place:
            root, home = _places(place)
            await extract(at.mirror, at.commit, directories, root, self.limits)
            found = await render_kustomize(root, path, options, components, home, self._programs)
        return self._keep("Kustomize", digest, found)

    async def _helm(
        self,
        options: SourceHelm,
        at: At,
        path: str,
        facts: ReleaseFacts,
        refs: Mapping[str, At],
        opens: Callable[[str], Access],
    ) -> Rendered:
        wanted, values, files, urls = await chart_files(at.mirror, at.commit, path, options)
        remotes = [ChartRemote(url, opens(url)) for url in urls]  # also where it is known: it may not be allowed now
        digest = await self._digest_of(
            "Helm", at, wanted, [path, to_dict(options), list(facts), await _others(values, refs)]
        )
        known = self._remembered(digest)
        if known is not None:
            return known
        # What a repository of charts does not give now, it may give soon.
        trying = self._trying(digest) if not remotes else contextlib.nullcontext()
        with trying, tempfile.TemporaryDirectory(prefix="pilothouse-render-") as place:
            root, home = _places(place)
            await extract(at.mirror, at.commit, wanted, root, self.limits)
            whole = [await self._whole(each, number, place, root, refs) for number, each in enumerate(values)]
            chart = Chart(
                os.path.join(root, path),
                whole,
                [(name, os.path.join(root, each)) for name, each in files],
                remotes,
                self._plain_http,
            )
            found = await render_helm(chart, path or ".", options, facts, home, self._programs)
        return self._keep("Helm", digest, found)

    async def render_pulled(
        self, source: Source, chart: PulledChart, facts: ReleaseFacts, refs: Mapping[str, At]
    ) -> Rendered:
        """Return the objects of a chart that was pulled. Raises SourceError."""
        options = source.helm or SourceHelm()
        label = f"{source.chart} {chart.version}"
        values, files = values_within(chart.directory, label, options)
        others = await _others([each for each in values if each.startswith("$")], refs)
        digest = _digest("chart", chart.directory, to_dict(options), list(facts), others)
        known = self._remembered(digest)
        if known is not None:
            return known
        with self._trying(digest), tempfile.TemporaryDirectory(prefix="pilothouse-render-") as place:
            _, home = _places(place)
            whole = [await self._whole(each, number, place, "", refs) for number, each in enumerate(values)]
            found = await render_helm(Chart(chart.directory, whole, files), label, options, facts, home, self._programs)
        return self._keep("Helm", digest, found)

    async def _whole(self, value: str, number: int, place: str, root: str, refs: Mapping[str, At]) -> str:
        """Return the whole path of a file of values; one of another source is written out."""
        if not value.startswith("$"):
            return os.path.join(root, value)
        other, inner = _referred(value, refs)
        apart = os.path.join(place, f"ref{number}")
        await extract(other.mirror, other.commit, [inner], apart, self.limits)
        return os.path.join(apart, inner)

    async def _digest_of(self, kind: str, at: At, paths: Sequence[str], more: object) -> bytes:
        named = await at.mirror.named(at.commit, paths)
        oids = [(path, found.oid if found else "") for path, found in sorted(named.items())]
        return _digest(at.mirror.name, kind, oids, more)

    @contextlib.contextmanager
    def _trying(self, digest: bytes) -> Iterator[None]:
        """Try to render something; what took long to fail is not tried again soon, for it would fail again."""
        until, why = self._slow.get(digest, (0.0, ""))
        began = time.monotonic()
        if began < until:
            raise ToolError(why)
        try:
            yield
        except ToolError as error:
            if time.monotonic() - began > SLOW_SECONDS:
                self._slow[digest] = time.monotonic() + _REST_SECONDS, str(error)
                if len(self._slow) > _MAX_SLOW:
                    self._slow.popitem(last=False)
            raise

    def _remembered(self, digest: bytes) -> Rendered | None:
        found = self._kept.get(digest)
        if found is not None:
            self.reused += 1
            self._kept.move_to_end(digest)
        return found

    def _keep(self, kind: str, digest: bytes, manifests: Sequence[Manifest]) -> Rendered:
        self.renders += 1
        written = tuple(Written(each.file, each.document, _encoder.encode(each.object)) for each in manifests)
        made = Rendered(kind, digest, written)
        self._kept[digest] = made
        self._bytes += _size(made)
        while self._bytes > self._max and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return made


async def _missing(said: str, path: str, at: At) -> str:
    """Return why a path is not there: submodules are not, and so nothing below them."""
    parts = path.split("/")
    above = ["/".join(parts[:number]) for number in range(len(parts))]
    named = await at.mirror.named(at.commit, above)
    for number, place in enumerate(above):
        found = named[place]
        if found is None or found.kind != "tree":
            break
        entries = await at.mirror.entries(found.oid, recurse=False)
        if any(each.path == parts[number] and each.is_submodule for each in entries):
            inner = "/".join(parts[: number + 1])
            return f"path {said!r}: {inner!r} is a submodule, which is not fetched; make its repository the source"
    return f"path {said!r}: commit {at.commit[:12]} does not have it"


def _places(place: str) -> tuple[str, str]:
    root, home = os.path.join(place, "tree"), os.path.join(place, "home")
    os.mkdir(root, 0o700)
    os.mkdir(home, 0o700)
    return root, home


def _referred(text: str, refs: Mapping[str, At]) -> tuple[At, str]:
    name, _, inner = text[1:].partition("/")
    if name not in refs:
        raise ManifestError(text, f"no source has the ref {name!r}; known are {', '.join(refs) or 'none'}")
    return refs[name], checked_path(inner)


async def _others(values: Sequence[str], refs: Mapping[str, At]) -> list[str]:
    found = []
    for each in values:
        if each.startswith("$"):
            other, inner = _referred(each, refs)
            named = (await other.mirror.named(other.commit, [inner]))[inner]
            if named is None:
                raise ManifestError(each, "valueFiles: it is not there")
            found.append(named.oid)
    return found


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(_encoder.encode(parts), digest_size=16).digest()


def _size(rendered: Rendered) -> int:
    return sum(len(each.data) + 200 for each in rendered.objects) + 500
