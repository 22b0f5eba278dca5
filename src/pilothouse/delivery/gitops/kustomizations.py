"""What kustomizations name: directories and files of the repository, and what Kustomize would fetch, refused. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .directory import _joined
from .errors import ManifestError
from .manifests import read_documents

__all__ = ["PLUGINS", "check_local", "files_of", "target_of", "targets_of"]

PLUGINS: Final = ("generators", "transformers", "validators")
"""Fields of plugins of Kustomize's own."""
_DIRECTORIES: Final = ("resources", "bases", "components", *PLUGINS)
_MANY: Final = ("crds", "patchesStrategicMerge", "paths", "files", "envs", "configurations")
_INNER: Final = ("patches", "patchesJson6902", "replacements", "configMapGenerator", "secretGenerator", "openapi")
_REMOTE: Final = re.compile(
    r"://|^(?:https?|ssh|file|git|gh):|^[\w.-]+@|^github\.com[:/]|\.git(?:[/?]|$)|/_git/"
    r"|\?(?:ref|version|timeout|submodules)=",
    re.IGNORECASE,
)
"""What Kustomize would take for a repository or a file of another host, whether it is there or not."""


def targets_of(file: str, document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return which directories and files a kustomization names: the field, what it says, and the path."""
    if document.get("helmCharts") or document.get("helmChartInflationGenerator"):
        raise ManifestError(file, "helmCharts are not fetched; make the chart a source of its own")
    for field, reference in files_of(document):
        check_local(file, field, reference)
    return [
        (field, reference, target_of(file, field, reference))
        for field in _DIRECTORIES
        for reference in _listed(document.get(field))
        if "\n" not in reference
    ]


def target_of(file: str, field: str, reference: str) -> str:
    """Return the path that a reference in a file means. Raises ManifestError where it leads elsewhere."""
    check_local(file, field, reference)
    target = _joined(file, reference)
    if target is None:
        raise ManifestError(file, f"{field}: {reference[:200]!r} leads out of the repository")
    return target


def check_local(file: str, field: str, reference: str) -> None:
    """Refuse what Kustomize would fetch. Raises ManifestError."""
    if _REMOTE.search(reference):
        raise ManifestError(file, f"{field}: {reference[:200]!r} is remote and not fetched; copy it here")


def _listed(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def files_of(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give the files that a kustomization or a plugin of its own names, which Kustomize would also fetch by HTTP."""
    for field in _MANY:
        for each in _listed(document.get(field)):
            if "\n" not in each:
                yield field, (each.partition("=")[2] or each) if field == "files" else each
    for field in ("path", "env"):
        if isinstance(document.get(field), str):
            yield field, document[field]
    for field in _INNER:
        yield from _within(field, document.get(field))
    for field in PLUGINS:
        for each in _listed(document.get(field)):
            yield from _inline(field, each)


def _within(field: str, inner: Any) -> Iterator[tuple[str, str]]:
    for one in inner if isinstance(inner, list) else [inner]:
        if isinstance(one, Mapping):
            yield from ((f"{field}.{name}", each) for name, each in files_of(one))


def _inline(field: str, text: str) -> Iterator[tuple[str, str]]:
    if "\n" in text:
        for _, plugin in read_documents(field, text.encode()):
            yield from files_of(plugin) if isinstance(plugin, Mapping) else ()
