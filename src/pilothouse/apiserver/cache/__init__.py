"""The watch cache: every object as its encoded bytes, and the changes of late, in front of whichever store."""

__all__: list[str] = []
