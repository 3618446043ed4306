"""Comparative modelling from the best template."""
