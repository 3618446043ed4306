"""Databases: what there is, how it is fetched and verified, what lies on disk."""
