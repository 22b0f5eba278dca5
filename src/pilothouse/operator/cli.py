"""The commands of `pilothouse operator`, each from its own module."""

from __future__ import annotations

from .cli_manifests import manifests
from .cli_new import new
from .cli_run import operator

__all__ = ["operator"]

operator.add_command(manifests)
operator.add_command(new)
