"""What the server tells about itself: versions, groups, resources and paths."""

from pilothouse.apiserver.discovery.aggregated import AGGREGATED_KINDS, fetched
from pilothouse.apiserver.discovery.legacy import AggregatedVersion, Group, group_priority, groups
from pilothouse.apiserver.discovery.serving import Discovery, Documents
from pilothouse.apiserver.discovery.version import version_info

__all__ = [
    "AGGREGATED_KINDS",
    "AggregatedVersion",
    "Discovery",
    "Documents",
    "Group",
    "fetched",
    "group_priority",
    "groups",
    "version_info",
]
