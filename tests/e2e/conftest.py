"""Fixtures that several modules here share."""

from tests.e2e.aws import account, aws_clone

__all__ = ["account", "aws_clone"]
