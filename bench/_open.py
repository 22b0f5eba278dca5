"""Open a data directory, answer one get, and print when that was and how much memory it took: one JSON object.

usage: _open.py DIRECTORY [KEY]
"""

from __future__ import annotations

import json
import sys
import time

from _kit import resident_bytes, run
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.model import RangeRequest


async def main(directory: str, key: bytes) -> dict[str, float]:
    """Measure; `answered` is on the system's monotonic clock, so that the parent can tell how long all of it took."""
    begun = time.monotonic()
    async with await EmbeddedStore.open(StoreOptions(data_dir=directory)) as store:
        found = store.read(RangeRequest(key))
        answered = time.monotonic()
        return {
            "answered": answered,
            "open_seconds": answered - begun,
            "resident": resident_bytes(),
            "keys": len(store.keys),
            "found": found.count,
        }


if __name__ == "__main__":
    print(json.dumps(run(main(sys.argv[1], sys.argv[2].encode() if len(sys.argv) > 2 else b"/"))))
