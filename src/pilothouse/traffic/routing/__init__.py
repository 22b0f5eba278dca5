"""Which rule a request falls under, and which backend's turn it is. Pure: no sockets, no clock."""

from __future__ import annotations

from .counters import Counters, LocalCounters, Slots
from .regions import Regions
from .router import BadRoute, Found, Router
from .shares import Portion, Share, Shares, schedule

__all__ = [
    "BadRoute",
    "Counters",
    "Found",
    "LocalCounters",
    "Portion",
    "Regions",
    "Router",
    "Share",
    "Shares",
    "Slots",
    "schedule",
]
