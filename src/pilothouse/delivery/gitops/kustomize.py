"""Kustomize overlays, rendered by the real `kustomize`, or the one within `kubectl`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from pilothouse.delivery.resources.applications import SourceKustomize
from pilothouse.kinds.structs import to_dict

from .errors import ManifestError, ToolError
from .kustomizations import PLUGINS, check_local, files_of, target_of, targets_of
from .manifests import Manifest, read_documents, read_manifests
from .mirrors import Entry, Mirror
from .tools import find_program, run_tool

__all__ = ["NAMES", "closure_of", "components_of", "render_kustomize"]

NAMES: Final = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_MAX: Final = 200
_NOBODY: Final = "http://127.0.0.1:9"
_MISSING: Final = (
    "this is a Kustomize overlay, and neither kustomize nor kubectl is there; install one of them "
    "(https://kubectl.docs.kubernetes.io/installation/kustomize/), or name its directory as `programs` of GitopsOptions"
)


async def closure_of(mirror: Mirror, commit: str, path: str, components: Sequence[str] = ()) -> list[str]:
    """Return the directories that an overlay needs: its own, and those outside of it that kustomizations name.

    components: further ones, from the overlay on. Raises ManifestError for what is remote or not there.
    """
    found: list[str] = []
    own = f"{path}/{NAMES[0]}" if path else NAMES[0]
    waiting = [path, *(target_of(own, "components", each) for each in components)]
    while waiting:
        at = waiting.pop()
        if any(_within(at, each) for each in found):
            continue
        named = (await mirror.named(commit, [at]))[at]
        if named is None or named.kind != "tree":
            continue  # a file, or what was found missing below
        found = [each for each in found if not _within(each, at)] + [at]
        if len(found) > _MAX:
            raise ManifestError(path, f"it needs more than {_MAX} directories")
        entries = await mirror.entries(named.oid)
        kustomizations = [one for one in entries if one.path.rpartition("/")[2] in NAMES and one.is_file]
        held = await mirror.blobs(kustomizations)
        for one in kustomizations:
            file = f"{at}/{one.path}" if at else one.path
            wanted = [each for _, each in read_documents(file, held[one.oid]) if isinstance(each, dict)]
            targets = [target for document in wanted for target in targets_of(file, document)]
            there = await mirror.named(commit, [target for _, _, target in targets])
            for field, reference, target in targets:
                if there[target] is None:
                    raise ManifestError(file, f"{field}: {reference[:200]!r} is not there")
            waiting += [target for _, _, target in targets if not _within(target, at)]
            if any(document.get(field) for document in wanted for field in PLUGINS):
                await _check_plugins(mirror, at, entries)
    return sorted(found)


async def components_of(mirror: Mirror, commit: str, path: str, options: SourceKustomize) -> list[str]:
    """Return the components that an application adds to its overlay, without those missing where it says so."""
    own = f"{path}/{NAMES[0]}" if path else NAMES[0]
    targets = {each: target_of(own, "components", each) for each in options.components}
    named = await mirror.named(commit, targets.values())
    missing = [each for each, target in targets.items() if named[target] is None]
    if missing and not options.ignore_missing_components:
        raise ManifestError(path or ".", f"components: {missing[0][:200]!r} is not there")
    return [each for each in targets if each not in missing]


def _within(path: str, directory: str) -> bool:
    return not directory or path == directory or path.startswith(f"{directory}/")


async def _check_plugins(mirror: Mirror, at: str, entries: Sequence[Entry]) -> None:
    """Refuse plugins that fetch files, wherever in a directory they are."""
    chosen = [each for each in entries if each.is_file and each.path.endswith((".yaml", ".yml"))]
    held = await mirror.blobs(chosen)
    for each in chosen:
        if b"builtin" not in held[each.oid]:
            continue
        file = f"{at}/{each.path}" if at else each.path
        for _, document in read_documents(file, held[each.oid]):
            if isinstance(document, Mapping) and document.get("apiVersion") == "builtin":
                if "Helm" in str(document.get("kind")):
                    raise ManifestError(file, "charts are not fetched; make the chart a source of its own")
                for field, reference in files_of(document):
                    check_local(file, field, reference)


async def render_kustomize(
    root: str, path: str, options: SourceKustomize, components: Sequence[str], home: str, programs: str = ""
) -> list[Manifest]:
    """Return the objects of an overlay on the disk. components: of the application. Raises SourceError."""
    program = find_program("kustomize", "kubectl", path=programs)
    if program is None:
        raise ToolError(_MISSING)
    directory = os.path.join(root, path)
    _adjust(directory, path, options, components)
    words = [program, "kustomize"] if os.path.basename(program) == "kubectl" else [program, "build"]
    # It can fetch nothing: there is no git for it, and no way to other hosts.
    alone = {"PATH": home, "HTTP_PROXY": _NOBODY, "HTTPS_PROXY": _NOBODY, "NO_PROXY": ""}
    what = f"kustomize, path {path or '.'}"
    printed = await run_tool(what, [*words, "."], home=home, cwd=directory, more=alone)
    return read_manifests(path or ".", printed)


def _adjust(directory: str, path: str, options: SourceKustomize, components: Sequence[str]) -> None:
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
    for field, reference in files_of({"patches": wanted.get("patches")}):
        check_local(path, field, reference)
    for name in ("namePrefix", "nameSuffix", "namespace"):
        if wanted.get(name):
            tree[name] = wanted[name]
    _add_common(tree, path, wanted, options)
    counts = [{"name": each.name, "count": int(each.count)} for each in options.replicas]
    for name, own in (("images", [_image(text) for text in options.images]), ("replicas", counts)):
        if own:
            tree[name] = _replaced(tree.get(name), own)
    tree["patches"] = [*(tree.get("patches") or ()), *(wanted.get("patches") or ())]
    tree["components"] = [*(tree.get("components") or ()), *components]
    # As JSON, which is YAML too, and in which a namespace called `n` is no boolean.
    with open(place, "wb") as out:
        out.write(msgspec.json.encode({name: value for name, value in tree.items() if value not in ([], None)}))


def _add_common(tree: dict[str, Any], path: str, wanted: Mapping[str, Any], options: SourceKustomize) -> None:
    for name, force in (
        ("commonAnnotations", options.force_common_annotations),
        ("commonLabels", options.force_common_labels),
    ):
        if not wanted.get(name):
            continue
        if name == "commonLabels" and options.label_without_selector:
            labels = {"pairs": wanted[name], "includeTemplates": bool(options.label_include_templates)}
            tree["labels"] = [*(tree.get("labels") or ()), labels]
            continue
        clash = sorted(set(wanted[name]) & set(tree.get(name) or {}))
        if clash and not force:
            raise ManifestError(path, f"{name}: {clash[0]!r} is there already; say force{name[0].upper()}{name[1:]}")
        tree[name] = {**(tree.get(name) or {}), **wanted[name]}


def _replaced(before: Any, own: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return what a kustomization has, with the application's own in place of what has the same name."""
    names = {each["name"] for each in own}
    kept = [each for each in before or () if not isinstance(each, Mapping) or each.get("name") not in names]
    return [*kept, *own]


def _image(text: str) -> dict[str, str]:
    """Read `old=new:tag` or `new:tag` or `new@digest`."""
    old, same, new = text.rpartition("=")
    name, at, digest = new.partition("@")
    tag = ""
    if not at and ":" in name.rpartition("/")[2]:
        name, _, tag = name.rpartition(":")
    made = {"name": old if same else name, "newName": name}
    return made | ({"digest": digest} if at else {"newTag": tag} if tag else {})
