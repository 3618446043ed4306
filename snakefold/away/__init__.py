"""Runs that go on without this machine: launched as a job of AWS Batch, followed, stopped, and brought home."""
