"""Kustomize overlays, rendered by the real `kustomize`, or the one within `kubectl`."""

from __future__ import annotations

import os
from typing import Any, Final

import msgspec

from pilothouse.delivery.resources.applications import SourceKustomize
from pilothouse.kinds.structs import to_dict

from .directory import _joined
from .errors import ManifestError, ToolError
from .manifests import Manifest, read_documents, read_manifests
from .mirrors import Entry, Mirror
from .tools import find_program, run_tool

__all__ = ["NAMES", "closure_of", "render_kustomize"]

NAMES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_DIRECTORIES: Final = ("resources", "bases", "components", "generators", "transformers", "validators", "configurations")
_MAX: Final = 200
_MISSING: Final = (
    "this is a Kustomize overlay, and neither kustomize nor kubectl is there; install one of them "
    "(https://kubectl.docs.kubernetes.io/installation/kustomize/), or name its directory as `programs` of GitopsOptions"
)


async def closure_of(mirror: Mirror, commit: str, path: str) -> list[str]:
    """Return the directories that an overlay needs: its own, and those outside of it that kustomizations name.

    Raises ManifestError for what is remote, and leaves what is not there to Kustomize, which names it best.
    """
    found: list[str] = []
    waiting = [path]
    while waiting:
        at = waiting.pop()
        if any(_within(at, each) for each in found):
            continue
        named = (await mirror.named(commit, [at]))[at]
        if named is None or named.kind != "tree":
            continue
        found = [each for each in found if not _within(each, at)] + [at]
        if len(found) > _MAX:
            raise ManifestError(path, f"it needs more than {_MAX} directories")
        entries = [one for one in await mirror.entries(named.oid) if one.path.rpartition("/")[2] in NAMES]
        held = await mirror.blobs([one for one in entries if one.is_file])
        for one in entries:
            waiting += _outside(at, one, held.get(one.oid, b""))
    return sorted(found)


def _within(path: str, directory: str) -> bool:
    return not directory or path == directory or path.startswith(f"{directory}/")


def _outside(directory: str, entry: Entry, data: bytes) -> list[str]:
    file = f"{directory}/{entry.path}" if directory else entry.path
    found = []
    for _, document in read_documents(file, data):
        if not isinstance(document, dict):
            continue
        if document.get("helmCharts") or document.get("helmChartInflationGenerator"):
            raise ManifestError(file, "helmCharts are not fetched; make the chart a source of its own")
        for field in _DIRECTORIES:
            for reference in document.get(field) or ():
                if not isinstance(reference, str) or "\n" in reference:
                    continue
                if "://" in reference or reference.startswith("git@") or "?ref=" in reference:
                    raise ManifestError(file, f"{field}: {reference[:200]!r} is remote and not fetched; copy it here")
                target = _joined(file, reference)
                if target is None:
                    raise ManifestError(file, f"{field}: {reference[:200]!r} leads out of the repository")
                if not _within(target, directory):
                    found.append(target)
    return found


async def render_kustomize(
    root: str, path: str, options: SourceKustomize, home: str, programs: str = ""
) -> list[Manifest]:
    """Return the objects of an overlay on the disk. Raises ToolError and ManifestError."""
    program = find_program("kustomize", "kubectl", path=programs)
    if program is None:
        raise ToolError(_MISSING)
    directory = os.path.join(root, path)
    _adjust(directory, path, options)
    words = [program, "kustomize"] if os.path.basename(program) == "kubectl" else [program, "build"]
    printed = await run_tool(f"kustomize, path {path or '.'}", [*words, "."], home=home, cwd=directory)
    return read_manifests(path or ".", printed)


def _adjust(directory: str, path: str, options: SourceKustomize) -> None:
    """Write what the application says into the copy of its kustomization."""
    wanted = to_dict(options)
    if not wanted:
        return
    place = next((each for name in NAMES if os.path.exists(each := os.path.join(directory, name))), None)
    if place is None:
        return
    with open(place, "rb") as file:
        documents = [value for _, value in read_documents(path, file.read())]
    tree: dict[str, Any] = documents[0] if documents and isinstance(documents[0], dict) else {}
    for name in ("namePrefix", "nameSuffix", "namespace"):
        if wanted.get(name):
            tree[name] = wanted[name]
    for name, force in (
        ("commonAnnotations", options.force_common_annotations),
        ("commonLabels", options.force_common_labels),
    ):
        if not wanted.get(name):
            continue
        if name == "commonLabels" and options.label_without_selector:
            labels = {"pairs": wanted[name], "includeTemplates": bool(options.label_include_templates)}
            tree.setdefault("labels", []).append(labels)
            continue
        clash = sorted(set(wanted[name]) & set(tree.get(name) or {}))
        if clash and not force:
            raise ManifestError(path, f"{name}: {clash[0]!r} is there already; say force{name[0].upper()}{name[1:]}")
        tree[name] = {**(tree.get(name) or {}), **wanted[name]}
    tree.setdefault("images", []).extend(_image(text) for text in options.images)
    tree.setdefault("replicas", []).extend({"name": each.name, "count": int(each.count)} for each in options.replicas)
    tree.setdefault("patches", []).extend(wanted.get("patches") or ())
    missing = options.ignore_missing_components
    there = [each for each in options.components if not missing or os.path.isdir(os.path.join(directory, each))]
    tree.setdefault("components", []).extend(there)
    # As JSON, which is YAML too, and in which a namespace called `n` is no boolean.
    with open(place, "wb") as out:
        out.write(msgspec.json.encode({name: value for name, value in tree.items() if value not in ([], None)}))


def _image(text: str) -> dict[str, str]:
    """Read `old=new:tag` or `new:tag` or `new@digest`."""
    old, same, new = text.rpartition("=")
    name, at, digest = new.partition("@")
    tag = ""
    if not at and ":" in name.rpartition("/")[2]:
        name, _, tag = name.rpartition(":")
    made = {"name": old if same else name, "newName": name}
    return made | ({"digest": digest} if at else {"newTag": tag} if tag else {})
