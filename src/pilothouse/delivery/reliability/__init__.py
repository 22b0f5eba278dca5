"""How reliable applications are: what was served well over months, and what became of deploys."""

__all__: list[str] = []
