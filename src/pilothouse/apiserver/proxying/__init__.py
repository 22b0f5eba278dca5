"""What carries requests to servers behind this one: pods, services, nodes, and aggregated APIs.

`subresources.connect_proxy` answers the `proxy` subresources, `aggregation.Aggregator` aggregated APIs. Imported one by
one, so that an idle server does not load what nobody uses.
"""

__all__: list[str] = []
