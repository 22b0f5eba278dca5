"""`pilothouse demo shop`: a shop out of git, under load from three regions; a bad version is taken back by itself."""

__all__: list[str] = []
