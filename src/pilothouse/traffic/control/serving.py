"""A gateway by files alone: read, translated, told to the data plane, and again when they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from pilothouse.foundation.logs import get_logger
from pilothouse.traffic.config import Configuration

from .controller import Plane
from .files import FileError, problems, read_files
from .translate import Options, Translation, translate
from .watching import FileWatch

__all__ = ["FileSource"]

_log = get_logger(__name__)
_FILES: Final = Options(may_leave=True)


class FileSource:
    """Tells a data plane what files say. `load` once, then `follow` until cancelled.

    Files that cannot be used after a change are logged, and the plane goes on by what it has.
    """

    def __init__(self, paths: Sequence[str | Path], plane: Plane, options: Options | None = None) -> None:
        self._paths = paths
        self._plane = plane
        self._options = replace(options or _FILES, may_leave=True)
        self._generation = 0
        self.configuration = Configuration()

    def read(self) -> Translation:
        """Return what the files ask for. Raises FileError."""
        return translate(read_files(self._paths), self._options)

    async def load(self) -> list[str]:
        """Read the files and tell the plane; return what is wrong with single objects.

        Raises FileError, and ValueError for what the plane does not take.
        """
        made = await asyncio.to_thread(self.read)
        found = problems(made)
        for each in found:
            _log.warning("an object of the files cannot be used as it is", problem=each)
        configuration = msgspec.structs.replace(made.configuration, generation=self._generation + 1)
        await self._plane.push(configuration)
        self._generation += 1
        self.configuration = configuration
        return found

    async def follow(self, on_watch: Callable[[FileWatch], object] | None = None) -> None:
        """Load again whenever the files change. on_watch: gets the watch, for signals to poke."""
        with FileWatch(self._paths) as watch:
            if on_watch is not None:
                on_watch(watch)
            while True:
                await watch.changed()
                try:
                    await self.load()
                except (FileError, ValueError, OSError) as error:
                    _log.error("the files were not taken up; what was before goes on", error=str(error))
                else:
                    _log.info("the files were taken up", generation=self._generation)
