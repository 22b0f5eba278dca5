"""How a process and the one that supervises it know of each other: two pipes, inherited by number.

The lower end reads one to learn that the upper is gone, also by SIGKILL, and writes the other to say that it is ready.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Final, Self

__all__ = ["VARIABLE", "Lifeline"]

VARIABLE: Final = "PILOTHOUSE_LIFELINE"
"""Names the two descriptors in a child's environment: READ,WRITE."""


class Lifeline:
    """The lower end. reading: ends when the supervisor does. writing: takes what there is to say."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        for descriptor in (reading, writing):
            os.set_inheritable(descriptor, False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self | None:
        """Return the lifeline of a supervised process, None for one that nobody supervises. Raises ValueError."""
        text = (os.environ if environment is None else environment).get(VARIABLE, "")
        if not text:
            return None
        reading, _, writing = text.partition(",")
        try:
            return cls(int(reading), int(writing))
        except (ValueError, OSError) as error:
            raise ValueError(f"{VARIABLE}={text!r}: want two open descriptors, READ,WRITE") from error

    def ready(self, **told: str) -> None:
        """Say that the process does its work; told: what whoever started it wants to know, such as its address."""
        self._say({"ready": told})

    def want(self, name: str, is_wanted: bool) -> None:
        """Say whether another process, which runs only where it is wanted, is."""
        self._say({"wanted": {name: is_wanted}})

    def _say(self, message: Mapping[str, Mapping[str, object]]) -> None:
        try:
            os.write(self._writing, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            return  # `watch` tells that too

    def watch(self, lost: Callable[[], object]) -> None:
        """Have `lost` called in the running loop once the supervisor is gone."""
        import asyncio  # noqa: PLC0415  # the upper end does without

        loop = asyncio.get_running_loop()

        def readable() -> None:
            if not os.read(self._reading, 64):
                loop.remove_reader(self._reading)
                lost()

        loop.add_reader(self._reading, readable)
