"""Encode stored records as etcd's back end keeps them, written independently of the engine, for HashKV."""

from __future__ import annotations

from pilothouse.store.model import KeyValue

__all__ = ["crc32c", "marshal_key_value", "revision_bytes"]


def revision_bytes(kv: KeyValue) -> bytes:
    """Return the key under which etcd stores one record."""
    return kv.mod_revision.to_bytes(8) + b"_" + kv.sub.to_bytes(8) + (b"" if kv.version else b"t")


def marshal_key_value(kv: KeyValue) -> bytes:
    """Return the protobuf bytes that etcd stores for one record."""
    if kv.version == 0:
        return _bytes_field(1, kv.key)
    return (
        _bytes_field(1, kv.key)
        + _int_field(2, kv.create_revision)
        + _int_field(3, kv.mod_revision)
        + _int_field(4, kv.version)
        + _bytes_field(5, kv.value)
        + _int_field(6, kv.lease)
    )


def _bytes_field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data if data else b""


def _int_field(number: int, value: int) -> bytes:
    return bytes([number << 3]) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of `data`, bit by bit over a table computed from the polynomial."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFF_FFFF


def _crc_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F6_3B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = [_crc_entry(byte) for byte in range(256)]
