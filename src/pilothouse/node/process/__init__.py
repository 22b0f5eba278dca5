"""Containers as process trees of this machine, made and kept by Python alone."""
