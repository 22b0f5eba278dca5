"""What a module logs, whatever other tests have set up for logs in this process before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from types import ModuleType
from typing import Any

import pytest
import structlog

__all__ = ["logged"]


@contextlib.contextmanager
def logged(module: ModuleType) -> Iterator[list[MutableMapping[str, Any]]]:
    """Give what a module logs within the block: `event`, `log_level` and its values."""
    capture = structlog.testing.LogCapture()
    every_level = structlog.make_filtering_bound_logger(0)
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[capture], wrapper_class=every_level)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_log", logger)
        yield capture.entries
