"""Where pods run: kube-scheduler's framework and plugins on a table of nodes that is looked at as a whole."""

from .configuration import Configuration, load, parse
from .decisions import Bind, Decision, Failed, Gated, Skipped
from .errors import ConfigurationError, SchedulingError
from .plugins import REGISTRY
from .scheduler import Scheduler

__all__ = [
    "REGISTRY",
    "Bind",
    "Configuration",
    "ConfigurationError",
    "Decision",
    "Failed",
    "Gated",
    "Scheduler",
    "SchedulingError",
    "Skipped",
    "load",
    "parse",
]
