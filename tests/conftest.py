"""What all tests share: those that want programs of Debian are skipped, with the reason, where these are missing."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from support.browser import browser

if TYPE_CHECKING:
    from support.sidebyside import FileScheduling

__all__ = ["browser"]

# How quickly examples are drawn and run says how busy the machine is, not what the tests are worth.
settings.register_profile("any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-speed")
# Checks of a change try the same examples each time, so that they judge the change and not the luck of the draw; runs
# by hand and the long ones draw new ones.
settings.register_profile("same", parent=settings.get_profile("any-speed"), derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("same")

# Programs that a shell starts in the background ignore Ctrl-C, and what they start does too; the tests of it must not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """Run each file in one worker, and go on where a worker dies."""
    from support.sidebyside import FileScheduling  # only where tests run side by side

    return FileScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Fail a test that leaves signals to something else: the next one that gets such would end all of them."""
    left = {number: signal.signal(number, handler) for number, handler in HANDLERS.items()}
    if left != HANDLERS:
        pytest.fail(f"{item.nodeid} leaves signals to {left}", pytrace=False)


ETCD_PROGRAMS = ("etcd", "etcdctl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that none ends alone beside idle workers; skip what wants a missing etcd."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)
    _skip_without_etcd(items)


def _skip_without_etcd(items: list[pytest.Item]) -> None:
    """Skip tests marked `etcd` where a program of it is missing; `-ra` prints the reason."""
    missing = [name for name in ETCD_PROGRAMS if shutil.which(name) is None]
    if not missing:
        return
    skip = pytest.mark.skip(reason=f"{' and '.join(missing)} not found: install Debian's etcd-server and etcd-client")
    for item in items:
        if item.get_closest_marker("etcd") is not None:
            item.add_marker(skip)
