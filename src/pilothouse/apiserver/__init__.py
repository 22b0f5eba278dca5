"""A Kubernetes API over the store: what clients talk to."""

__all__: list[str] = []
