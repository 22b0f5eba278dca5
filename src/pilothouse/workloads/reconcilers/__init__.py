"""One module a controller: it reads the caches, asks the pure core what to do, and writes."""

__all__: list[str] = []
