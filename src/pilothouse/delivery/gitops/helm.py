"""Helm charts, rendered by the real `helm template`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from pilothouse.delivery.resources.applications import SourceHelm

from .directory import _joined
from .errors import ManifestError, ToolError
from .manifests import Manifest, read_documents, read_manifests
from .mirrors import Mirror, checked_path
from .tools import find_program, run_tool

__all__ = ["MISSING", "Chart", "ReleaseFacts", "chart_files", "render_helm", "values_within"]

MISSING: Final = "this is a Helm chart, and helm is not there; install it (https://helm.sh/docs/intro/install/)"
_SCHEMES: Final = ("http://", "https://")


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


async def chart_files(
    mirror: Mirror, commit: str, path: str, options: SourceHelm
) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Return the paths that a chart of a repository needs, its files of values, and those of parameters.

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
    wanted += await _local_dependencies(mirror, commit, path)
    outside = [
        each for each in dict.fromkeys(wanted) if each == path or not each.startswith(f"{path}/" if path else "")
    ]
    return outside, values, files


def _place(path: str, name: str) -> str:
    if name.startswith("/"):
        return checked_path(name)
    found = _joined(f"{path}/x" if path else "x", name)
    if found is None:
        raise ManifestError(path, f"{name[:200]!r} leads out of the repository")
    return found


async def _local_dependencies(mirror: Mirror, commit: str, path: str) -> list[str]:
    file = f"{path}/Chart.yaml" if path else "Chart.yaml"
    named = (await mirror.named(commit, [file]))[file]
    if named is None or named.kind != "blob":
        return []
    tree = (await mirror.named(commit, [path]))[path]
    entries = await mirror.entries(tree.oid, recurse=False) if tree is not None else []
    held = await mirror.blobs([each for each in entries if each.path == "Chart.yaml" and each.is_file])
    found = []
    for data in held.values():
        for _, document in read_documents(file, data):
            listed: Any = document.get("dependencies") if isinstance(document, dict) else None
            for each in listed or ():
                where = str(each.get("repository", "")) if isinstance(each, dict) else ""
                if where.startswith("file://"):
                    found.append(_place(path, where.removeprefix("file://")))
    return found


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
    if _wants_dependencies(chart.directory):
        await run_tool(
            f"helm dependency build, {label}", [program, "dependency", "build", "."], home=home, cwd=chart.directory
        )
    command = [program, "template", ".", *_arguments(chart, options, facts, home)]
    printed = await run_tool(f"helm template, {label}", command, home=home, cwd=chart.directory)
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
    words = ["--name-template", options.release_name or facts.name, "--namespace", options.namespace or facts.namespace]
    version = options.kube_version or facts.kube_version
    words += ["--kube-version", version] if version else []
    words += [] if options.skip_crds else ["--include-crds"]
    words += ["--skip-schema-validation"] if options.skip_schema_validation else []
    words += ["--skip-tests"] if options.skip_tests else []
    for each in options.api_versions or facts.api_versions:
        words += ["--api-versions", each]
    for place in chart.values:
        words += ["--values", place]
    inline = _inline_values(options)
    if inline:
        place = os.path.join(home, "values.json")
        with open(place, "wb") as file:
            file.write(inline)
        words += ["--values", place]
    for parameter in options.parameters:
        text = f"{parameter.name}={_escaped(parameter.value)}"
        words += ["--set-string" if parameter.force_string else "--set", text]
    for name, place in chart.files:
        words += ["--set-file", f"{name}={place}"]
    return words


def _inline_values(options: SourceHelm) -> bytes:
    if options.values_object:
        return msgspec.json.encode(options.values_object)
    return options.values.encode()


def _escaped(value: str) -> str:
    """Keep commas from beginning another parameter, but for lists in braces."""
    if value.startswith("{") and value.endswith("}"):
        return value
    return value.replace("\\,", ",").replace(",", "\\,")
