"""The order of ports and subsets: by the hash of Go's dump of each, so that equal ones are written equally. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from pilothouse.kinds.structs.core_services import EndpointAddress, EndpointSubset
from pilothouse.kinds.structs.core_services import EndpointPort as SubsetPort
from pilothouse.kinds.structs.discovery import EndpointPort as SlicePort

__all__ = ["slice_port_order", "subset_order", "subset_port_order"]

_OFFSET: Final = 0x6C62272E07BB014262B821756295C58D
_PRIME: Final = 0x0000000001000000000000000000013B
_MASK: Final = (1 << 128) - 1


def slice_port_order(port: SlicePort) -> int:
    """Return where a port belongs among the ports of a slice."""
    return _port_hash(
        f"(v1.EndpointPort){{Name:(*string){_text(port.name)} Protocol:(*v1.Protocol){_text(port.protocol)} "
        f"Port:(*int32){_text(port.port)} AppProtocol:(*string){_text(port.app_protocol)}}}"
    )


def subset_port_order(port: SubsetPort) -> int:
    """Return where a port belongs among the ports of a subset."""
    return _port_hash(f"(v1.EndpointPort){_subset_port(port)}")


def subset_order(subset: EndpointSubset) -> int:
    """Return where a subset belongs among the subsets of Endpoints."""
    ready, waiting = _list(map(_address, subset.addresses)), _list(map(_address, subset.not_ready_addresses))
    ports = _list(map(_subset_port, subset.ports))
    return _hash(
        f"(v1.EndpointSubset){{Addresses:([]v1.EndpointAddress){ready} NotReadyAddresses:([]v1.EndpointAddress)"
        f"{waiting} Ports:([]v1.EndpointPort){ports}}}"
    )


def _hash(text: str) -> int:
    """Return FNV-1a of 128 bits."""
    value = _OFFSET
    for byte in text.encode():
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


@lru_cache(maxsize=4_096)
def _port_hash(text: str) -> int:
    return _hash(text)


def _text(value: object) -> str:
    return "<nil>" if value is None else str(value)


def _list(items: Iterable[str]) -> str:
    found = [*items]
    return f"[{' '.join(found)}]" if found else "<nil>"


def _subset_port(port: SubsetPort) -> str:
    return (
        f"{{Name:(string){port.name} Port:(int32){port.port} Protocol:(v1.Protocol){port.protocol or ''} "
        f"AppProtocol:(*string){_text(port.app_protocol)}}}"
    )


def _address(address: EndpointAddress) -> str:
    target, about = address.target_ref, "<nil>"
    if target is not None:
        about = (
            f"{{Kind:(string){target.kind} Namespace:(string){target.namespace} Name:(string){target.name} "
            f"UID:(types.UID){target.uid} APIVersion:(string){target.api_version or ''} "
            f"ResourceVersion:(string){target.resource_version} FieldPath:(string){target.field_path}}}"
        )
    return (
        f"{{IP:(string){address.ip} Hostname:(string){address.hostname} NodeName:(*string){_text(address.node_name)} "
        f"TargetRef:(*v1.ObjectReference){about}}}"
    )
