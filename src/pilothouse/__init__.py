"""Pilothouse: the cloud-native stack in one Python program."""

__version__ = "0.1.0.dev0"

__all__ = ["__version__"]
