"""What all tests share: those that want programs of Debian are skipped, with the reason, where these are missing."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
from hypothesis import settings

# Checks of a change try the same examples each time, so that they judge the change and not the luck of the draw; runs
# by hand and the long ones draw new ones.
settings.register_profile("same", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("same")

# Programs that a shell starts in the background ignore Ctrl-C, and what they start does too; the tests of it must not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ETCD_PROGRAMS = ("etcd", "etcdctl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `etcd` where a program of it is missing; `-ra` prints the reason."""
    missing = [name for name in ETCD_PROGRAMS if shutil.which(name) is None]
    if not missing:
        return
    skip = pytest.mark.skip(reason=f"{' and '.join(missing)} not found: install Debian's etcd-server and etcd-client")
    for item in items:
        if item.get_closest_marker("etcd") is not None:
            item.add_marker(skip)
