"""The verbs: what a request for a resource does, from its body to its answer."""

__all__: list[str] = []
