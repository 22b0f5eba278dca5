"""What keeps a cluster's objects in order without anybody asking: garbage, namespaces, accounts, definitions."""

from __future__ import annotations

from pilothouse.apiserver.lifecycle.definitions import clean_up
from pilothouse.apiserver.lifecycle.lifecycle import Lifecycle

__all__ = ["Lifecycle", "clean_up"]
