"""Which images go when the disk is full: the longest unused first, none that a container has. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pilothouse.node.runtime import ImageStatus

from .options import Thresholds

__all__ = ["ImageUse"]


class ImageUse:
    """When each image was last used; as many are remembered as there are."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._seen: dict[str, float] = {}

    def saw(self, images: Iterable[ImageStatus], in_use: set[str], now: float) -> None:
        """Take note of what is there and what containers have."""
        there = {image.id for image in images}
        self._seen = {each: self._seen.get(each, now) for each in there}
        self._used = {each: now if each in in_use else self._used.get(each, self._seen[each]) for each in there}

    def to_remove(
        self, images: Iterable[ImageStatus], in_use: set[str], limits: Thresholds, *, total: int, free: int, now: float
    ) -> list[ImageStatus]:
        """Return the images to remove, so that the disk is below the lower threshold again."""
        if not total or 1 - free / total < limits.image_high:
            return []
        wanted = int(total * (1 - limits.image_low)) - free
        chosen: list[ImageStatus] = []
        for image in sorted(images, key=lambda each: (self._used.get(each.id, now), each.id)):
            young = now - self._seen.get(image.id, now) < limits.image_min_age
            if wanted <= 0:
                break
            if image.id in in_use or image.pinned or young or not image.size:
                continue
            chosen.append(image)
            wanted -= image.size
        return chosen
