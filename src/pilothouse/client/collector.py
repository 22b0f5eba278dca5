"""Python's garbage collector while thousands of objects are read: paused, and then spared looking at them for ever.

And what the C library keeps of the memory that was freed then.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pilothouse.foundation.clock import Clock

__all__ = ["collector_paused", "no_collections", "return_memory", "spare_collector"]

MAX_SECONDS: Final = 10.0
"""For so long it may be paused at a time: whoever streams slowly allocates slowly."""

_pausing = 0
_was_enabled = False


@contextmanager
def collector_paused(clock: Clock, seconds: float = MAX_SECONDS) -> Iterator[None]:
    """Pause collection for the block, or the first seconds of it; several may do so at once.

    Reading a list makes objects that all live on; the collector would look at each of them again and again, which
    takes several times as long as the reading.
    """
    left = False

    def leave() -> None:
        nonlocal left
        if not left:
            left = True
            _resume()

    _pause()
    timer = clock.call_later(seconds, leave)
    try:
        yield
    finally:
        timer.cancel()
        leave()


@contextmanager
def no_collections() -> Iterator[None]:
    """Pause collection for a block that waits for nothing and makes objects that all live on."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def spare_collector() -> None:
    """Leave all that is there now out of later collections; it is still freed when nobody refers to it."""
    gc.freeze()


def return_memory() -> bool:
    """Give freed memory back to the system, where the C library can; it takes some 10 ms after tens of megabytes.

    Of thousands of texts in a row that were freed glibc returns nothing by itself while anything after them lives.
    """
    import ctypes  # noqa: PLC0415  # seldom needed

    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError, TypeError):  # another C library
        return False


def _pause() -> None:
    global _pausing, _was_enabled  # noqa: PLW0603  the collector is one for the process
    if not _pausing:
        _was_enabled = gc.isenabled()
        gc.disable()
    _pausing += 1


def _resume() -> None:
    global _pausing  # noqa: PLW0603  as above
    _pausing -= 1
    if not _pausing and _was_enabled:
        gc.enable()
