"""What the package shows to others: documented modules, and `__all__` that holds."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import pilothouse

MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(pilothouse.__path__, "pilothouse.")
    if not found.name.endswith(("_pb2", "__main__"))
)
PUBLIC = [name for name in MODULES if not any(part.startswith("_") for part in name.split("."))]

EXPORTS = {
    "pilothouse": {"__version__"},
    "pilothouse.cli": {"COMMANDS", "LazyCommand", "LazyGroup", "main"},
    "pilothouse.foundation.clock": {"Clock", "FakeClock", "SystemClock", "Timer"},
    "pilothouse.foundation.files": {"Buffer", "FileSystem", "OsFileSystem", "write_all", "write_whole"},
    "pilothouse.foundation.ids": {"NAME_ALPHABET", "Ids", "SeededIds", "SystemIds"},
    "pilothouse.foundation.logs": {"Level", "configure", "get_logger", "is_secret_name", "redact"},
    "pilothouse.foundation.memoryfiles": {"MemoryFileSystem"},
    "pilothouse.foundation.metrics": {
        "BYTES_BUCKETS",
        "CONTENT_TYPE",
        "COUNT_BUCKETS",
        "PROGRAM",
        "SECONDS_BUCKETS",
        "MetricError",
        "Metrics",
    },
    "pilothouse.foundation.processes": {
        "Completed",
        "ProcessError",
        "ProcessFailed",
        "ProcessNotStarted",
        "ProcessTimeout",
        "inherit",
        "run",
    },
    "pilothouse.foundation.retry": {"Attempt", "Backoff", "RetriesExhausted", "Retryable", "retry"},
    "pilothouse.foundation.terminal": {
        "EXIT_CODES",
        "CommandError",
        "ExitCode",
        "emit",
        "examples",
        "listen_address",
        "output_option",
        "outputs_option",
        "printable",
        "table_lines",
    },
    "pilothouse.foundation.tls": {
        "Credentials",
        "ReloadingContext",
        "TlsError",
        "client_context",
        "issue",
        "make_ca",
        "server_context",
        "write",
    },
    "pilothouse.foundation.tracing": {"TraceParent", "disable", "enable", "enabled", "extract", "inject", "span"},
    "pilothouse.scheduling": {
        "REGISTRY",
        "Bind",
        "Configuration",
        "ConfigurationError",
        "Decision",
        "Failed",
        "Gated",
        "Scheduler",
        "SchedulingError",
        "Skipped",
        "load",
        "parse",
    },
    "pilothouse.testing": {"BlockingCaller", "BlockingPlane", "Caller", "ControlPlane"},
}
"""The public names that programs may rely on; a change here is a change for them and wants a news fragment."""


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_public_names_are_these(name: str) -> None:
    assert set(importlib.import_module(name).__all__) == EXPORTS[name]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_is_documented_and_its_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name}: no docstring"
    first = module.__doc__.splitlines()[0]
    assert first.strip(), f"{name}: the docstring's first line is empty"
    exported = getattr(module, "__all__", None)
    if exported is None:
        assert "." not in name.removeprefix("pilothouse."), f"{name}: no __all__"
        return
    assert len(exported) == len(set(exported))
    missing = [item for item in exported if not hasattr(module, item)]
    assert not missing, f"{name}: __all__ names {missing}, which do not exist"
    own = [getattr(module, item) for item in exported]
    undocumented = [
        item.__name__ for item in own if (inspect.isclass(item) or inspect.isfunction(item)) and not item.__doc__
    ]
    assert not undocumented, f"{name}: no docstring on {undocumented}"


def test_there_are_modules_to_look_at() -> None:
    assert set(EXPORTS) - {"pilothouse"} <= set(PUBLIC)


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "pilothouse", "version"], capture_output=True, text=True, check=True)
    assert pilothouse.__version__ in done.stdout
