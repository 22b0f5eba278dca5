from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import pilothouse.testing


def test_what_is_offered_is_there() -> None:
    for name in pilothouse.testing.__all__:
        assert getattr(pilothouse.testing, name).__name__ == name


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Cluster'"):
        _ = pilothouse.testing.Cluster


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> object:
        raise ModuleNotFoundError("No module named 'httptools'", name="httptools")

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ModuleNotFoundError, match=r"needs httptools: pip install 'pilothouse\[server\]'"):
        _ = pilothouse.testing.ControlPlane


def test_the_package_alone_is_light() -> None:
    text = "import pilothouse.testing, sys; sys.exit(any(m in sys.modules for m in ('msgspec', 'ssl', 'asyncio')))"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0
