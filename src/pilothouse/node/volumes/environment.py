"""The environment of a container, its command and arguments, as a kubelet makes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from pilothouse.kinds.structs.core_config import ConfigMap, Secret
from pilothouse.kinds.structs.core_containers import Container, EnvFromSource, EnvVar, EphemeralContainer
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.structs.core_services import Service

from .errors import ConfigError
from .expansion import expand
from .fields import FieldError, PodFacts, field_value, resource_value

__all__ = ["AnyContainer", "Environment", "Known", "Reference", "environment_of", "references", "service_variables"]

AnyContainer: TypeAlias = Container | EphemeralContainer
Reference: TypeAlias = tuple[Literal["configmap", "secret"], str]
"""Kind and name of an object in the pod's own namespace."""
Known: TypeAlias = Mapping[Reference, ConfigMap | Secret | None]
"""The objects that `references` names; None for those that are not there."""

_NAME: Final = re.compile(r"[ -<>-~]+").fullmatch


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What a container is started with. `skipped` are names that no variable can have, by their object."""

    variables: dict[str, str]
    command: tuple[str, ...]
    args: tuple[str, ...]
    skipped: tuple[tuple[str, tuple[str, ...]], ...] = ()


def references(container: AnyContainer) -> Iterator[Reference]:
    """Yield what a container's environment refers to."""
    for source in container.env_from:
        if source.config_map_ref is not None:
            yield "configmap", source.config_map_ref.name
        if source.secret_ref is not None:
            yield "secret", source.secret_ref.name
    for variable in container.env:
        if (origin := variable.value_from) is not None:
            if origin.config_map_key_ref is not None:
                yield "configmap", origin.config_map_key_ref.name
            if origin.secret_key_ref is not None:
                yield "secret", origin.secret_key_ref.name


def environment_of(
    pod: Pod, container: AnyContainer, known: Known, services: Iterable[Service] = (), facts: PodFacts | None = None
) -> Environment:
    """Return a container's environment. services: all of the cluster, or those of the pod's namespace and `kubernetes`.

    Raises `ConfigError` for references that lead nowhere and are not optional.
    """
    facts = facts or PodFacts()
    links = service_variables(services, pod.metadata.namespace, all_=pod.spec.enable_service_links is not False)
    made: dict[str, str] = {}
    skipped: list[tuple[str, tuple[str, ...]]] = []
    for source in container.env_from:
        made |= _whole_object(source, known, skipped.append)
    for variable in container.env:
        value = _value(pod, container, variable, known, facts, (made, links))
        if value is not None:
            made[variable.name] = value
    for name, value in links.items():
        made.setdefault(name, value)
    return Environment(
        variables=made,
        command=tuple(expand(word, made) for word in container.command),
        args=tuple(expand(word, made) for word in container.args),
        skipped=tuple(skipped),
    )


def _data(found: ConfigMap | Secret) -> dict[str, str]:
    if isinstance(found, ConfigMap):
        return dict(found.data)
    return {key: value.decode("utf-8", "surrogateescape") for key, value in found.data.items()}


def _whole_object(
    source: EnvFromSource, known: Known, skip: Callable[[tuple[str, tuple[str, ...]]], None]
) -> dict[str, str]:
    reference: Reference
    if source.config_map_ref is not None:
        reference, optional = ("configmap", source.config_map_ref.name), source.config_map_ref.optional
    elif source.secret_ref is not None:
        reference, optional = ("secret", source.secret_ref.name), source.secret_ref.optional
    else:
        return {}
    found = known.get(reference)
    if found is None:
        if optional:
            return {}
        raise ConfigError(f'{reference[0]} "{reference[1]}" not found')
    named = {source.prefix + key: value for key, value in _data(found).items()}
    bad = tuple(sorted(name for name in named if not _NAME(name)))
    if bad:
        skip((f"{reference[0]} {found.metadata.namespace}/{reference[1]}", bad))
    return {name: value for name, value in named.items() if name not in bad}


def _value(
    pod: Pod,
    container: AnyContainer,
    variable: EnvVar,
    known: Known,
    facts: PodFacts,
    values: tuple[Mapping[str, str], Mapping[str, str]],
) -> str | None:
    """Return a variable's value, None where it is left out."""
    origin = variable.value_from
    if variable.value or origin is None:
        return expand(variable.value, *values)
    try:
        if origin.field_ref is not None:
            return field_value(pod, origin.field_ref.field_path, facts)
        if origin.resource_field_ref is not None:
            return resource_value(pod, origin.resource_field_ref, container, facts)
    except FieldError as error:
        raise ConfigError(str(error)) from error
    if (from_map := origin.config_map_key_ref) is not None:
        return _key(known, ("configmap", from_map.name), from_map.key, pod, optional=bool(from_map.optional))
    if (from_secret := origin.secret_key_ref) is not None:
        return _key(known, ("secret", from_secret.name), from_secret.key, pod, optional=bool(from_secret.optional))
    raise ConfigError(f'environment variable "{variable.name}": this node knows no such source of a value')


def _key(known: Known, reference: Reference, key: str, pod: Pod, *, optional: bool) -> str | None:
    found = known.get(reference)
    if found is None:
        if optional:
            return None
        raise ConfigError(f'{reference[0]} "{reference[1]}" not found')
    data = _data(found)
    if key in data:
        return data[key]
    if optional:
        return None
    shown = "ConfigMap" if reference[0] == "configmap" else "Secret"
    raise ConfigError(f"couldn't find key {key} in {shown} {pod.metadata.namespace}/{reference[1]}")


def service_variables(services: Iterable[Service], namespace: str, *, all_: bool = True) -> dict[str, str]:
    """Return the variables that tell where services are: those of the namespace if `all_`, and always `kubernetes`."""
    chosen: dict[str, Service] = {}
    for each in services:
        if each.spec.cluster_ip in {"", "None"}:
            continue
        if each.metadata.namespace == namespace and all_:
            chosen[each.metadata.name] = each
        elif (each.metadata.namespace, each.metadata.name) == ("default", "kubernetes"):
            chosen.setdefault("kubernetes", each)
    made: dict[str, str] = {}
    for name in sorted(chosen):
        made |= _links(chosen[name])
    return made


def _links(service: Service) -> dict[str, str]:
    name = service.metadata.name.upper().replace("-", "_")
    address, ports = service.spec.cluster_ip, service.spec.ports
    if not ports:
        return {}
    shown = f"[{address}]" if ":" in address else address
    made = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            made[f"{name}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    for place, port in enumerate(ports):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{shown}:{port.port}"
        prefix = f"{name}_PORT_{port.port}_{protocol}"
        if not place:
            made[f"{name}_PORT"] = url
        made[prefix] = url
        made |= {f"{prefix}_PROTO": protocol.lower(), f"{prefix}_PORT": str(port.port), f"{prefix}_ADDR": address}
    return made
