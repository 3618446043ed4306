"""Protein structure prediction in bulk: the package behind the snakefold workflow."""

__version__ = "0.1.0"
