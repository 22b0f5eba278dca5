"""Warnings about the volumes of pods: kinds that are gone, and files that are in each other's way."""

from __future__ import annotations

from typing import Any

from pilothouse.kinds.fielderrors import Path, quote
from pilothouse.kinds.warnings import parts

__all__ = ["OLD_PLUGINS", "volume_warnings"]

Object = dict[str, Any]
File = tuple[str, str]
"""A path, and what it comes from."""
OLD_PLUGINS = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_FILES = frozenset({"configMap", "secret", "downwardAPI", "projected"})
_SHOWN = {"storageos": "storageOS"}
_CERTIFICATE_FILES = {
    "certificateChainPath": "PodCertificate chain",
    "keyPath": "PodCertificate key",
    "credentialBundlePath": "PodCertificate credential bundle",
}


def volume_warnings(at: Path, volumes: list[Object]) -> list[str]:
    """Return the warnings about the volumes of a pod."""
    warnings: list[str] = []
    for position, volume in enumerate(volumes):
        warnings += [
            f"{at.index(position).child(_SHOWN.get(field, field))}: {OLD_PLUGINS[field]}"
            for field in volume
            if field in OLD_PLUGINS and volume[field] is not None
        ]
        if (template := (volume.get("ephemeral") or {}).get("volumeClaimTemplate")) is not None:
            where = at.index(position).child("ephemeral", "volumeClaimTemplate", "spec")
            warnings += parts.storage_request(where, template.get("spec") or {})
    for volume in volumes:
        if not _FILES.isdisjoint(volume):
            warnings += _overlaps(volume)
    return warnings


def _overlaps(volume: Object) -> list[str]:
    name = quote(volume.get("name") or "")
    found: list[tuple[str, Any]] = []
    if source := volume.get("configMap"):
        found.append((f"ConfigMap {quote(source.get('name') or '')}", source.get("items")))
    if source := volume.get("secret"):
        found.append((f"Secret {quote(source.get('secretName') or '')}", source.get("items")))
    if source := volume.get("downwardAPI"):
        found.append(("DownwardAPI", source.get("items")))
    warnings = [
        f"volume {name} ({what}): overlapping paths: {text}"
        for what, files in found
        for text in _collisions([(file.get("path") or "", "") for file in files or ()])
    ]
    if source := volume.get("projected"):
        sources = source.get("sources") or ()
        warnings += [f"volume {name} (Projected) has no sources provided" for each in sources if not each]
        files = [file for each in sources for file in _projected(each)]
        warnings += [f"volume {name} (Projected): overlapping paths: {text}" for text in _collisions(files)]
    return warnings


def _projected(source: Object) -> list[File]:
    """Return the files of one source of a projected volume."""
    for field, noun in (("configMap", "ConfigMap"), ("secret", "Secret"), ("downwardAPI", "DownwardAPI")):
        found = source.get(field) or {}
        if found.get("items"):
            what = noun if field == "downwardAPI" else f"{noun} {quote(found.get('name') or '')}"
            return [(file.get("path") or "", what) for file in found["items"]]
    if (found := source.get("serviceAccountToken")) is not None:
        return [(found.get("path") or "", "ServiceAccountToken")]
    if (found := source.get("clusterTrustBundle")) is not None:
        named = found.get("name") if found.get("name") is not None else found.get("signerName")
        return [(found.get("path") or "", f"ClusterTrustBundle {quote(named or '')}")]
    found = source.get("podCertificate") or {}
    return [(found[field], noun) for field, noun in _CERTIFICATE_FILES.items() if found.get(field)]


def _collisions(files: list[File]) -> list[str]:
    if len(files) < 2:  # one is in nobody's way
        return []
    texts: list[str] = []
    before: list[File] = []
    for given, source in files:
        file = (given.rstrip("/"), source)
        if file[0]:
            texts += [f"{_shown(file)} with {_shown(other)}" for other in before if _collide(file, other)]
        before.append(file)
    return texts


def _collide(file: File, other: File) -> bool:
    here, there = f"{file[0]}/", f"{other[0]}/"
    return bool(other[0]) and (here.startswith(there) or there.startswith(here))


def _shown(file: File) -> str:
    return f"{quote(file[0])} ({file[1]})" if file[1] else quote(file[0])
