"""A fake AWS for tests and benchmarks: moto's services, with Batch jobs that really run. See README.md here."""

from tests.fake_aws.fake import FakeAws

__all__ = ["FakeAws"]
