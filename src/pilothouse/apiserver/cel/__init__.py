"""Kubernetes' expressions (CEL): compiled once, evaluated with their costs counted.

The language, its libraries and their error messages are those of Kubernetes 1.36. An expression is parsed, type-checked
and turned into Python closures; an evaluation stops when it costs more than its limit, so that hostile ones end soon.
"""

from pilothouse.apiserver.cel.authorization import Authorizer, ResourceCheck
from pilothouse.apiserver.cel.errors import CelCompileError, CelError, CostExceededError
from pilothouse.apiserver.cel.program import PER_CALL_LIMIT, RUNTIME_BUDGET, Budget, Environment, Program
from pilothouse.apiserver.cel.values import LazyMap

__all__ = [
    "PER_CALL_LIMIT",
    "RUNTIME_BUDGET",
    "Authorizer",
    "Budget",
    "CelCompileError",
    "CelError",
    "CostExceededError",
    "Environment",
    "LazyMap",
    "Program",
    "ResourceCheck",
]
