"""Restrained minimisation with OpenMM."""
