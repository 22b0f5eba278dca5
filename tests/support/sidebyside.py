"""How tests run side by side: a file is one worker's, and a worker that dies costs one test and no more."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

__all__ = ["FileScheduling"]


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """`--dist loadfile` that goes on when a worker dies.

    A worker begins a test only when it knows of the next one, or that there is none. xdist's own scheduling gives the
    worker in a dead one's place a single file, finished ones among them: with one test or none it waits for ever. And
    it tries the test that the worker died of again, in the next worker.
    """

    def schedule(self) -> None:
        """Give out the first files; later, when a worker has taken a dead one's place, enough for it to begin."""
        has_begun = self.collection is not None
        super().schedule()
        if has_begun:
            for node in self.nodes:
                self._reschedule(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a worker out and give what it has not run to others. Return the test that it died of, None if idle."""
        left = {
            scope: [name for name, is_done in unit.items() if not is_done]
            for scope, unit in self.assigned_work.pop(node).items()
        }
        died_of = next((name for names in left.values() for name in names), None)
        for scope, names in left.items():
            if unit := {name: False for name in names if name != died_of}:
                self.workqueue[scope] = unit
        for other in self.nodes:
            self._reschedule(other)
        return died_of

    def _assign_work_unit(self, node: WorkerController) -> None:
        with contextlib.suppress(OSError):  # it died just now; `remove_node` gives its files to others
            super()._assign_work_unit(node)
