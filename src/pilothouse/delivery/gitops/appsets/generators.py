"""Generators: sets of parameters out of lists, directories and files of git, clusters, and combinations of these."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pilothouse.delivery.gitops.errors import RepositoryError, TemplateError
from pilothouse.delivery.gitops.globs import matches
from pilothouse.delivery.gitops.manifests import read_documents
from pilothouse.delivery.gitops.mirrors import Entry, Mirror
from pilothouse.delivery.gitops.projects import IN_CLUSTER, IN_CLUSTER_URL
from pilothouse.kinds.labels import from_label_selector

from .fasttemplate import fill, flattened
from .gotemplate import expand_all, normalized

__all__ = ["MAX_SETS", "Generated", "Sources", "generate"]

Parameters: TypeAlias = dict[str, Any]
MAX_SETS: Final = 5_000
_KNOWN: Final = ("list", "git", "clusters", "matrix", "merge")
_MAX_DEPTH: Final = 4


@dataclass(frozen=True, slots=True)
class Sources:
    """Where generators look. repository: gives mirror and commit of URL and revision. clusters: all, by Secrets."""

    repository: Callable[[str, str], Awaitable[tuple[Mirror, str]]]
    clusters: Sequence[Mapping[str, Any]] = ()
    go: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Generated:
    """One set of parameters; template: of its generator, which goes before that of the whole."""

    parameters: Parameters
    template: Mapping[str, Any] | None = None


async def generate(generators: Sequence[Mapping[str, Any]], sources: Sources) -> list[Generated]:
    """Return the sets of parameters of all generators, one after the other. Raises DeliveryError."""
    found: list[Generated] = []
    for generator in generators:
        name = _name_of(generator)
        inner = generator[name] or {}
        template = inner.get("template") if isinstance(inner, Mapping) else None
        sets = await _sets(generator, sources, {}, 0)
        found += [Generated(each, template) for each in sets]
        if len(found) > MAX_SETS:
            raise TemplateError(f"the generators give more than {MAX_SETS} sets of parameters")
    return found


def _name_of(generator: Mapping[str, Any]) -> str:
    names = [name for name in generator if name != "selector"]
    if len(names) != 1 or names[0] not in _KNOWN:
        shown = ", ".join(names) or "nothing"
        raise TemplateError(f"generator {shown}: want one of {', '.join(_KNOWN)}; others are not served here")
    return names[0]


async def _sets(generator: Mapping[str, Any], sources: Sources, outer: Parameters, depth: int) -> list[Parameters]:
    if depth > _MAX_DEPTH:
        raise TemplateError(f"generators are nested deeper than {_MAX_DEPTH}")
    name = _name_of(generator)
    inner: Mapping[str, Any] = generator[name] or {}
    if outer:
        inner = _filled(inner, sources, outer)
    match name:
        case "list":
            found = _list(inner, sources)
        case "git":
            found = await _git(inner, sources)
        case "clusters":
            found = _clusters(inner, sources)
        case "matrix":
            found = await _matrix(inner, sources, outer, depth)
        case _:
            found = await _merge(inner, sources, outer, depth)
    selector = generator.get("selector")
    if selector:
        wanted = from_label_selector(selector)
        found = [each for each in found if wanted.matches(_texts(each))]
    if len(found) > MAX_SETS:
        raise TemplateError(f"generator {name} gives more than {MAX_SETS} sets of parameters")
    return found


def _texts(parameters: Parameters) -> dict[str, str]:
    return flattened(parameters)


def _filled(template: Any, sources: Sources, parameters: Parameters) -> Any:
    if sources.go:
        return expand_all(template, parameters, strict=sources.strict)
    return fill(template, flattened(parameters))


def _with_values(found: Parameters, values: Mapping[str, Any] | None, sources: Sources) -> Parameters:
    """Return parameters with further ones, `values.NAME`, which may refer to them."""
    if not values:
        return found
    filled = _filled(dict(values), sources, found)
    if sources.go:
        return {**found, "values": filled}
    return {**found, **{f"values.{name}": str(value) for name, value in filled.items()}}


def _list(inner: Mapping[str, Any], sources: Sources) -> list[Parameters]:
    elements = inner.get("elements") or []
    extra = inner.get("elementsYaml")
    if extra:
        for _, document in read_documents("elementsYaml", str(extra).encode()):
            elements = [*elements, *(document if isinstance(document, list) else [])]
    found = []
    for each in elements:
        if not isinstance(each, Mapping):
            raise TemplateError(f"generator list: element {each!r} is no map")
        found.append(dict(each) if sources.go else flattened(each))
    return found


def _clusters(inner: Mapping[str, Any], sources: Sources) -> list[Parameters]:
    selector = inner.get("selector") or {}
    here = {"name": IN_CLUSTER, "server": IN_CLUSTER_URL, "metadata": {"labels": {}, "annotations": {}}}
    chosen: list[Mapping[str, Any]] = []
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        known = {each["server"] for each in sources.clusters}
        chosen = [*sources.clusters, *([] if IN_CLUSTER_URL in known else [here])]
    else:
        wanted = from_label_selector(selector)
        chosen = [each for each in sources.clusters if wanted.matches(each["metadata"]["labels"])]
    found = []
    for each in chosen:
        made = {**each, "nameNormalized": normalized(str(each["name"])), "project": each.get("project", "")}
        found.append(_with_values(made if sources.go else flattened(made), inner.get("values"), sources))
    return found


async def _matrix(inner: Mapping[str, Any], sources: Sources, outer: Parameters, depth: int) -> list[Parameters]:
    parts = inner.get("generators") or []
    if len(parts) != 2:
        raise TemplateError(f"generator matrix: it has {len(parts)} generators; want two")
    found = []
    for one in await _sets(parts[0], sources, outer, depth + 1):
        for other in await _sets(parts[1], sources, {**outer, **one}, depth + 1):
            clash = sorted(name for name in one.keys() & other.keys() if one[name] != other[name])
            if clash and not sources.go:
                raise TemplateError(f"generator matrix: both parts give {clash[0]!r}, with different values")
            found.append({**one, **other})
    return found


async def _merge(inner: Mapping[str, Any], sources: Sources, outer: Parameters, depth: int) -> list[Parameters]:
    keys = inner.get("mergeKeys") or []
    parts = inner.get("generators") or []
    if not keys or len(parts) < 2:
        raise TemplateError("generator merge: want mergeKeys and two generators or more")
    base, *others = [await _sets(each, sources, outer, depth + 1) for each in parts]
    merged = {_identity(each, keys): each for each in base}
    if len(merged) < len(base):
        raise TemplateError(f"generator merge: its first part gives the same {', '.join(keys)} twice")
    for each in itertools.chain.from_iterable(others):
        name = _identity(each, keys)
        if name in merged:
            merged[name] = {**merged[name], **each}
    return list(merged.values())


def _identity(parameters: Parameters, keys: Sequence[str]) -> tuple[str, ...]:
    texts = flattened(parameters)
    return tuple(texts.get(key, "") for key in keys)


# Git


async def _git(inner: Mapping[str, Any], sources: Sources) -> list[Parameters]:
    url = str(inner.get("repoURL") or "")
    if not url:
        raise TemplateError("generator git: repoURL is missing")
    mirror, commit = await sources.repository(url, str(inner.get("revision") or "HEAD"))
    root = (await mirror.named(commit, [""]))[""]
    if root is None:
        raise RepositoryError(f"{url}: commit {commit[:12]} has no files")
    entries = await mirror.entries(root.oid)
    prefix = str(inner.get("pathParamPrefix") or "")
    if inner.get("directories"):
        found = [_path_of(path, prefix, sources) for path in _directories(entries, inner["directories"])]
    elif inner.get("files"):
        found = await _files(mirror, entries, inner["files"], prefix, sources)
    else:
        raise TemplateError("generator git: say directories or files")
    return [_with_values(each, inner.get("values"), sources) for each in found]


def _directories(entries: Sequence[Entry], rules: Sequence[Mapping[str, Any]]) -> list[str]:
    places = {
        "/".join(parts[:number])
        for each in entries
        for parts in [each.path.split("/")[:-1]]
        for number in range(1, len(parts) + 1)
    }
    chosen = []
    for path in sorted(places):
        if any(part.startswith(".") for part in path.split("/")):
            continue
        taken = any(not rule.get("exclude") and _fits(str(rule.get("path", "")), path) for rule in rules)
        if taken and not any(rule.get("exclude") and _fits(str(rule.get("path", "")), path) for rule in rules):
            chosen.append(path)
    return chosen


def _fits(pattern: str, path: str) -> bool:
    """Whether a path fits a pattern in which `*` stands for one name and `**` for any number of them."""
    if "**" in pattern:
        return matches(pattern.replace("**", "*"), path) or matches(pattern.replace("**/", ""), path)
    parts, names = pattern.strip("/").split("/"), path.split("/")
    return len(parts) == len(names) and all(map(matches, parts, names))


def _path_of(path: str, prefix: str, sources: Sources, file: str = "") -> Parameters:
    """Return the parameters of a path, under `path` or below a prefix."""
    segments = path.split("/") if path else []
    base = segments[-1] if segments else ""
    made: Parameters = {"path": path, "basename": base, "basenameNormalized": normalized(base), "segments": segments}
    if file:
        made |= {"filename": file, "filenameNormalized": normalized(file)}
    if sources.go:
        return {prefix: {"path": made}} if prefix else {"path": made}
    name = f"{prefix}.path" if prefix else "path"
    found = {name: path, f"{name}.basename": base, f"{name}.basenameNormalized": normalized(base)}
    found |= {f"{name}[{number}]": part for number, part in enumerate(segments)}
    if file:
        found |= {f"{name}.filename": file, f"{name}.filenameNormalized": normalized(file)}
    return found


async def _files(
    mirror: Mirror, entries: Sequence[Entry], rules: Sequence[Mapping[str, Any]], prefix: str, sources: Sources
) -> list[Parameters]:
    chosen = [
        each
        for each in entries
        if each.is_file
        and any(not rule.get("exclude") and _fits(str(rule.get("path", "")), each.path) for rule in rules)
        and not any(rule.get("exclude") and _fits(str(rule.get("path", "")), each.path) for rule in rules)
    ]
    held = await mirror.blobs(chosen)
    found = []
    for each in chosen:
        directory, _, name = each.path.rpartition("/")
        for _, document in read_documents(each.path, held[each.oid]):
            for one in document if isinstance(document, list) else [document]:
                if not isinstance(one, Mapping):
                    raise TemplateError(f"generator git: {each.path} holds no map")
                path = _path_of(directory, prefix, sources, name)
                found.append({**(dict(one) if sources.go else flattened(one)), **path})
    return found
