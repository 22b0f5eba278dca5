"""What importing the client costs: heavy modules come when they are needed and not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pilothouse.client
from pilothouse.client import _HOMES

HEAVY = {"aiohttp", "cryptography", "prometheus_client", "structlog", "rich", "wsproto", "yaml", "pydantic"}


def loaded(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_the_client_loads_next_to_nothing() -> None:
    found = loaded("import pilothouse.client") - loaded("import importlib, typing")
    assert not found & (HEAVY | {"asyncio", "ssl", "msgspec", "httptools"})
    assert len(found) < 10, sorted(found)


def test_a_client_loads_no_heavy_library_and_no_other_room() -> None:
    found = loaded("from pilothouse.client import Client, ClientConfig, HttpTransport, InProcess, ObjectEvent")
    assert not found & HEAVY
    rooms = {name.split(".")[1] for name in found if name.startswith("pilothouse.")}
    assert rooms <= {"client", "kinds", "foundation"}
    assert "pilothouse.kinds.structs.core_pods" not in found, "kinds come with their first use"


def test_all_names_are_there() -> None:
    homes = [name for names in _HOMES.values() for name in names.split()]
    assert sorted(homes) == sorted(set(homes)) == sorted(pilothouse.client.__all__)
    for name in pilothouse.client.__all__:
        assert getattr(pilothouse.client, name) is not None
    assert dir(pilothouse.client) == sorted(pilothouse.client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = pilothouse.client.Nothing  # type: ignore[attr-defined]
