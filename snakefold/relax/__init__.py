"""Restrained minimisation with OpenMM."""

from snakefold.relax.relax import relax_model

__all__ = ["relax_model"]
