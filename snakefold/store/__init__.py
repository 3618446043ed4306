"""The content-addressed store of expensive results.

Two levels, as Bazel's remote cache has them: an *action* key, made of everything that determines a result, leads to
a *record*; the record names the result's files by digest; each *blob* is the bytes of one digest. Both levels appear
whole or not at all, so that any number of writers may share a store and none sees a part.
"""

from pathlib import Path

from snakefold.errors import SnakefoldError
from snakefold.files import is_address
from snakefold.s3 import is_s3
from snakefold.store.base import DAY, GRACE_DAYS, Action, Record, Store, StoreError, StoreStatistics
from snakefold.store.local import LocalStore
from snakefold.store.s3 import S3Store

__all__ = [
    "DAY",
    "GRACE_DAYS",
    "Action",
    "LocalStore",
    "Record",
    "S3Store",
    "Store",
    "StoreError",
    "StoreStatistics",
    "open_store",
]


def open_store(location: str) -> Store:
    """The store at a directory or an S3 prefix, of which nothing is asked yet. Raises SnakefoldError otherwise."""
    if is_s3(location):
        return S3Store(location)
    if is_address(location):
        raise SnakefoldError(
            f"store: {location}: neither a folder nor an S3 prefix; name a folder or s3://BUCKET/PREFIX"
        )
    return LocalStore(Path(location))
