"""The files of volumes that show config maps, secrets, fields and projections: their names, bytes and modes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from pilothouse.kinds.structs.core_config import ConfigMap, Secret
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.structs.core_volumes import (
    DownwardAPIVolumeFile,
    KeyToPath,
    ProjectedVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)

from .environment import Known, Reference
from .fields import FieldError, PodFacts, field_value, resource_value

__all__ = ["File", "Files", "PayloadError", "files_of", "has_fields", "kind_of", "tokens_of", "volume_references"]

_BLANK: Final = Volume()
_DEFAULT_MODE: Final = 0o644
_TOKEN_MODE: Final = 0o600


class File(msgspec.Struct, frozen=True):
    """One file of a volume; `uid` None is root's."""

    data: bytes
    mode: int
    uid: int | None = None


Files: TypeAlias = dict[str, File]


class PayloadError(Exception):
    """What a volume should show is not there; the text is a kubelet's."""


def kind_of(volume: Volume) -> str:
    """Return the field that says what a volume is; "empty_dir" where none does."""
    if volume.config_map is not _BLANK.config_map:
        return "config_map"
    for name in Volume.__struct_fields__:
        if name not in {"name", "config_map"} and getattr(volume, name) is not getattr(_BLANK, name):
            return name
    return "empty_dir"


def _projections(volume: Volume) -> Sequence[VolumeProjection]:
    return volume.projected.sources if kind_of(volume) == "projected" else ()


def volume_references(volume: Volume) -> Iterator[Reference]:
    """Yield the config maps and secrets that a volume shows."""
    kind = kind_of(volume)
    if kind == "config_map":
        yield "configmap", volume.config_map.name
    elif kind == "secret":
        yield "secret", volume.secret.secret_name
    for source in _projections(volume):
        if source.config_map is not None:
            yield "configmap", source.config_map.name
        if source.secret is not None:
            yield "secret", source.secret.name


def tokens_of(volume: Volume) -> list[ServiceAccountTokenProjection]:
    """Return the service-account tokens that a volume shows."""
    return [each.service_account_token for each in _projections(volume) if each.service_account_token is not None]


def has_fields(volume: Volume) -> bool:
    """Whether a volume shows fields of the pod, which may change."""
    return kind_of(volume) == "downward_api" or any(each.downward_api is not None for each in _projections(volume))


def files_of(
    pod: Pod,
    volume: Volume,
    known: Known,
    *,
    tokens: Mapping[str, str] | None = None,
    facts: PodFacts | None = None,
) -> Files:
    """Return what a configMap, secret, downwardAPI or projected volume shows.

    tokens: service-account tokens by their path. Raises `PayloadError`.
    """
    facts = facts or PodFacts()
    kind = kind_of(volume)
    if kind == "config_map":
        config = volume.config_map
        mode = _DEFAULT_MODE if config.default_mode is None else config.default_mode
        return _object(pod, ("configmap", config.name), config.items, known, mode, optional=bool(config.optional))
    if kind == "secret":
        secret = volume.secret
        mode = _DEFAULT_MODE if secret.default_mode is None else secret.default_mode
        reference: Reference = ("secret", secret.secret_name)
        return _object(pod, reference, secret.items, known, mode, optional=bool(secret.optional))
    if kind == "downward_api":
        mode = _DEFAULT_MODE if volume.downward_api.default_mode is None else volume.downward_api.default_mode
        return _fields(pod, volume.downward_api.items, mode, facts)
    return _projected(pod, volume.projected, known, tokens or {}, facts)


def _projected(
    pod: Pod,
    projected: ProjectedVolumeSource,
    known: Known,
    tokens: Mapping[str, str],
    facts: PodFacts,
) -> Files:
    mode = _DEFAULT_MODE if projected.default_mode is None else projected.default_mode
    made: Files = {}
    problems: list[str] = []
    for source in projected.sources:
        try:
            made |= _one(pod, source, known, mode, facts)
        except PayloadError as error:
            problems.append(str(error))
        if source.service_account_token is not None:
            path = source.service_account_token.path
            made[path] = _token_file(pod, tokens[path], mode)
        if source.cluster_trust_bundle is not None:
            problems.append("clusterTrustBundle: this cluster has none; use a configMap with the certificates")
        if source.pod_certificate is not None:
            problems.append("podCertificate: this node makes no certificates for pods; use a secret")
    if len(problems) > 1:
        raise PayloadError(f"[{', '.join(problems)}]")
    if problems:
        raise PayloadError(problems[0])
    return made


def _one(pod: Pod, source: VolumeProjection, known: Known, mode: int, facts: PodFacts) -> Files:
    if (config := source.config_map) is not None:
        return _object(pod, ("configmap", config.name), config.items, known, mode, optional=bool(config.optional))
    if (secret := source.secret) is not None:
        return _object(pod, ("secret", secret.name), secret.items, known, mode, optional=bool(secret.optional))
    if source.downward_api is not None:
        return _fields(pod, source.downward_api.items, mode, facts)
    return {}


def _token_file(pod: Pod, token: str, mode: int) -> File:
    """Return a token's file: readable for the one user of the containers, or for the pod's group, if there is one."""
    security = pod.spec.security_context
    user, group = _sole_user(pod), None if security is None else security.fs_group
    if user is None and group is None:
        return File(token.encode(), mode)
    return File(token.encode(), _TOKEN_MODE, user)


def _sole_user(pod: Pod) -> int | None:
    """Return the user that all containers run as, None where they differ or do not say."""
    security = pod.spec.security_context
    usual = None if security is None else security.run_as_user
    users = {
        usual
        if each.security_context is None or each.security_context.run_as_user is None
        else each.security_context.run_as_user
        for each in (*pod.spec.init_containers, *pod.spec.containers)
    }
    return users.pop() if len(users) == 1 else None


def _object(
    pod: Pod, reference: Reference, items: Sequence[KeyToPath], known: Known, mode: int, *, optional: bool
) -> Files:
    kind, name = reference
    found = known.get(reference)
    if found is None:
        if optional:
            return {}
        raise PayloadError(f'{kind} "{name}" not found')
    data = _bytes(found)
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    made: Files = {}
    for item in items:
        if item.key in data:
            made[item.path] = File(data[item.key], mode if item.mode is None else item.mode)
        elif not optional:
            shown = (
                "configmap references non-existent config key"
                if kind == "configmap"
                else ("references non-existent secret key")
            )
            raise PayloadError(f"{shown}: {item.key}")
    return made


def _bytes(found: ConfigMap | Secret) -> dict[str, bytes]:
    if isinstance(found, Secret):
        return dict(found.data)
    return {key: value.encode() for key, value in found.data.items()} | dict(found.binary_data)


def _fields(pod: Pod, items: Sequence[DownwardAPIVolumeFile], mode: int, facts: PodFacts) -> Files:
    made: Files = {}
    for item in items:
        try:
            if item.field_ref is not None:
                text = field_value(pod, item.field_ref.field_path, facts)
            elif item.resource_field_ref is not None:
                text = resource_value(pod, item.resource_field_ref, None, facts)
            else:
                continue
        except FieldError as error:
            raise PayloadError(str(error)) from error
        made[item.path] = File(text.encode(), mode if item.mode is None else item.mode)
    return made
