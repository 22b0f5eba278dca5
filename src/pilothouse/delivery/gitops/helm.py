"""Helm charts, rendered by the real `helm template`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from pilothouse.delivery.resources.applications import SourceHelm

from .chartrepos import ChartRemote, command_of, introduce
from .directory import _joined
from .errors import ManifestError, ToolError
from .manifests import Manifest, read_documents, read_manifests
from .mirrors import Mirror, checked_path
from .tools import find_program, run_tool

__all__ = ["MISSING", "Chart", "ChartNeeds", "ReleaseFacts", "chart_files", "render_helm", "values_within"]

MISSING: Final = "this is a Helm chart, and helm is not there; install it (https://helm.sh/docs/intro/install/)"
_SCHEMES: Final = ("http://", "https://")
_INCOMPLETE: Final = "missing in charts/"
_RELEASE: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


class ReleaseFacts(NamedTuple):
    """What a chart is told of where it goes."""

    name: str
    namespace: str
    kube_version: str = ""
    api_versions: tuple[str, ...] = ()


class Chart(NamedTuple):
    """A chart on the disk. values: files of values, whole paths. files: those of parameters, by name."""

    directory: str
    values: Sequence[str] = ()
    files: Sequence[tuple[str, str]] = ()
    remotes: Sequence[ChartRemote] = ()
    plain_http: bool = False


class ChartNeeds(NamedTuple):
    """What a chart of git needs. paths: to be there. values, files: as in a chart. urls: of its dependencies."""

    paths: list[str]
    values: list[str]
    files: list[tuple[str, str]]
    urls: list[str]


async def chart_files(mirror: Mirror, commit: str, path: str, options: SourceHelm) -> ChartNeeds:
    """Return what a chart of a repository needs.

    Values of other sources (`$ref/...`) are left out. Raises ManifestError for what leads out of the repository.
    """
    values, wanted = [], [path]
    named = [_place(path, each) for each in options.value_files if not each.startswith(("$", *_SCHEMES))]
    there = await mirror.named(commit, named)
    for each in options.value_files:
        if each.startswith(_SCHEMES):
            raise ManifestError(path, f"valueFiles: {each[:200]!r} is remote and not fetched; commit it")
        if each.startswith("$"):
            values.append(each)
            continue
        place = _place(path, each)
        if there[place] is None:
            if options.ignore_missing_value_files:
                continue
            raise ManifestError(path, f"valueFiles: {each[:200]!r} is not there")
        values.append(place)
        wanted.append(place)
    files = [(each.name, _place(path, each.path)) for each in options.file_parameters]
    wanted += [place for _, place in files]
    local, urls = await _dependencies(mirror, commit, path)
    wanted += local
    outside = [
        each for each in dict.fromkeys(wanted) if each == path or not each.startswith(f"{path}/" if path else "")
    ]
    return ChartNeeds(outside, values, files, urls)


def _place(path: str, name: str) -> str:
    if name.startswith("/"):
        return checked_path(name)
    found = _joined(f"{path}/x" if path else "x", name)
    if found is None:
        raise ManifestError(path, f"{name[:200]!r} leads out of the repository")
    return found


async def _dependencies(mirror: Mirror, commit: str, path: str) -> tuple[list[str], list[str]]:
    """Return the charts of the same repository that a chart depends on, and the addresses of those elsewhere."""
    file = f"{path}/Chart.yaml" if path else "Chart.yaml"
    named = (await mirror.named(commit, [file]))[file]
    if named is None or named.kind != "blob":
        return [], []
    tree = (await mirror.named(commit, [path]))[path]
    entries = await mirror.entries(tree.oid, recurse=False) if tree is not None else []
    held = await mirror.blobs([each for each in entries if each.path == "Chart.yaml" and each.is_file])
    local, urls = [], []
    for data in held.values():
        for _, document in read_documents(file, data):
            listed: Any = document.get("dependencies") if isinstance(document, dict) else None
            for each in listed if isinstance(listed, list) else ():
                where = str(each.get("repository") or "") if isinstance(each, dict) else ""
                if where.startswith("file://"):
                    local.append(_neighbour(file, path, where))
                elif where:
                    urls.append(_elsewhere(file, where))
    return local, list(dict.fromkeys(urls))


def _neighbour(file: str, path: str, where: str) -> str:
    inner = where.removeprefix("file://")
    if inner.startswith("/"):
        raise ManifestError(file, f"dependencies: {where[:200]!r} leads out of the repository; write file://../NAME")
    return _place(path, inner)


def _elsewhere(file: str, where: str) -> str:
    if where.startswith(("@", "alias:")):
        raise ManifestError(file, f"dependencies: {where[:200]!r}: names of repositories are not known; write its URL")
    if not where.startswith(("https://", "http://", "oci://")):
        raise ManifestError(file, f"dependencies: {where[:200]!r}: charts come by https, oci or file")
    return where


def values_within(directory: str, label: str, options: SourceHelm) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the files of values of a chart on the disk, and those of parameters, as whole paths or `$ref/...`.

    Raises ManifestError for what is not there or leads out of the chart.
    """
    values = []
    for each in options.value_files:
        if each.startswith(("$", *_SCHEMES)):
            if each.startswith(_SCHEMES):
                raise ManifestError(label, f"valueFiles: {each[:200]!r} is remote and not fetched; commit it")
            values.append(each)
            continue
        place = os.path.join(directory, _place("", each))
        if os.path.isfile(place):
            values.append(place)
        elif not options.ignore_missing_value_files:
            raise ManifestError(label, f"valueFiles: {each[:200]!r} is not there")
    return values, [(each.name, os.path.join(directory, _place("", each.path))) for each in options.file_parameters]


async def render_helm(
    chart: Chart, label: str, options: SourceHelm, facts: ReleaseFacts, home: str, programs: str = ""
) -> list[Manifest]:
    """Return the objects of a chart. label: of the chart, for errors. Raises ToolError and ManifestError."""
    program = find_program("helm", path=programs)
    if program is None:
        raise ToolError(MISSING)

    async def helm(*words: str, stdin: bytes = b"") -> bytes:
        return await run_tool(
            f"{command_of(words)}, {label}", [program, *words], home=home, cwd=chart.directory, stdin=stdin
        )

    async def fetch() -> None:
        named = [each._replace(name=f"dependency{number}") for number, each in enumerate(chart.remotes)]
        words = await introduce(helm, home, named, plain_http=chart.plain_http)
        await helm("dependency", "build", "--skip-refresh", *words, ".")

    wants = _wants_dependencies(chart.directory)
    if wants:
        await fetch()
    command = ["template", ".", *_arguments(chart, options, facts, home)]
    try:
        printed = await helm(*command)
    except ToolError as error:
        if wants or _INCOMPLETE not in str(error):
            raise
        await fetch()
        printed = await helm(*command)
    return read_manifests(label, printed)


def _wants_dependencies(directory: str) -> bool:
    try:
        with open(os.path.join(directory, "Chart.yaml"), "rb") as file:
            documents = [value for _, value in read_documents("Chart.yaml", file.read())]
    except OSError:
        return False
    listed = documents[0].get("dependencies") if documents and isinstance(documents[0], dict) else None
    return bool(listed) and not os.path.isdir(os.path.join(directory, "charts"))


def _arguments(chart: Chart, options: SourceHelm, facts: ReleaseFacts, home: str) -> list[str]:
    name = options.release_name or facts.name
    if not _RELEASE.fullmatch(name):  # helm takes it for a template, which could read its environment
        raise ManifestError("spec.source.helm.releaseName", f"{name[:100]!r} is no name of a release")
    words = ["--name-template", name, "--namespace", options.namespace or facts.namespace]
    version = options.kube_version or facts.kube_version
    words += ["--kube-version", version] if version else []
    words += [] if options.skip_crds else ["--include-crds"]
    words += ["--skip-schema-validation"] if options.skip_schema_validation else []
    words += ["--skip-tests"] if options.skip_tests else []
    for each in options.api_versions or facts.api_versions:
        words += ["--api-versions", each]
    for place in chart.values:
        words += ["--values", _listed(place)]
    inline = _inline_values(options)
    if inline:
        place = os.path.join(home, "values.json")
        with open(place, "wb") as file:
            file.write(inline)
        words += ["--values", _listed(place)]
    for parameter in options.parameters:
        text = f"{parameter.name}={_escaped(parameter.value)}"
        words += ["--set-string" if parameter.force_string else "--set", text]
    for name, place in chart.files:
        if not name or any(each in name for each in "=,{}\\\n"):
            raise ManifestError("spec.source.helm.fileParameters", f"{name[:100]!r} is no name of a parameter")
        words += ["--set-file", f"{name}={place.replace(',', chr(92) + ',')}"]
    return words


def _listed(place: str) -> str:
    """Return a path as one that helm's lists with commas have; otherwise it would go on behind a comma of its name."""
    return '"' + place.replace('"', '""') + '"'


def _inline_values(options: SourceHelm) -> bytes:
    if options.values_object:
        return msgspec.json.encode(options.values_object)
    return options.values.encode()


def _escaped(value: str) -> str:
    """Keep commas from beginning another parameter, but for lists in braces."""
    if value.startswith("{") and value.endswith("}"):
        return value
    return value.replace("\\,", ",").replace(",", "\\,")
