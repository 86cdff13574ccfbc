"""File systems of fsspec for addresses of object stores, and their errors in one form."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monai.utils import OptionalImportError

from monai_mil_ext.utils.optional import optional_dependency

__all__ = ["StoreError", "open_store", "store_errors"]

core = optional_dependency("remote", "fsspec.core")

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
INSTALL = {"s3fs": "monai-mil-ext[remote]"}
CREDENTIALS = "credentials of the object store, in the environment or a profile as its own tools read them"
REFUSED = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AccessKeyId")
# of s3fs and botocore, whose lines may hold the whole address of a request, with its signature
LOGGERS = ("s3fs", "fsspec", "aiobotocore", "botocore")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoreError(OSError):
    """Error of an object store: no bucket, no permission, no credentials, no answer."""


def open_store(address: str) -> tuple[Any, str]:
    """Return the file system of an address and the path of the object in it, ``bucket/key``.

    Nothing is kept between calls but what fsspec keeps for a process, so that a forked worker opens its own.

    Raises:
        OptionalImportError: when the package of this kind of store is not installed.
        StoreError: when the store can't be opened.
    """
    scheme = address.partition(":")[0]
    _quiet()
    try:
        # a listing that is kept would hide what another machine writes
        return core.url_to_fs(address, use_listings_cache=False, skip_instance_cache=False)
    except OptionalImportError:
        raise
    except ImportError:
        package = PACKAGES.get(scheme, scheme)
        needed = INSTALL.get(package, package)
        raise OptionalImportError(f"addresses of {scheme}:// need {package}: pip install {needed}.") from None
    except Exception as error:
        raise StoreError(f"`path` must be an address of a store, got {type(error).__name__}.") from None


@contextmanager
def store_errors(name: str) -> Iterator[None]:
    """Convert errors of a store to one sentence that names the object; their own texts may have keys and addresses.

    Raises:
        FileNotFoundError: when there is no such object.
        StoreError: for every other error of the store.
    """
    try:
        yield
    except (StoreError, OptionalImportError):
        raise
    except FileNotFoundError as error:
        if "bucket does not exist" in str(error):
            raise StoreError(f"`path` must lie in a bucket that exists, got none for {name!r}.") from None
        raise FileNotFoundError(f"`path` must be an object that exists, got none for {name!r}.") from None
    except PermissionError as error:
        # s3fs converts these, too, and only their texts tell them apart
        is_identity = any(code in str(error) for code in REFUSED) or "credentials" in str(error).lower()
        rule = f"be reached with valid {CREDENTIALS}" if is_identity else "be an object that the credentials may use"
        raise StoreError(f"`path` must {rule}, got no permission for {name!r}.") from None
    except Exception as error:
        if getattr(error, "errno", None) in FULL:
            raise StoreError("the cache must lie on a disk with room for the object, got a full one.") from None
        kind = type(error).__name__
        if "Credential" in kind:
            raise StoreError(f"`path` must be reached with {CREDENTIALS}, got none for {name!r}.") from None
        raise StoreError(f"`path` must lie in a store that answers, got {kind} for {name!r}.") from None


def _quiet() -> None:
    """Keep the lines of these loggers about each request out of a log, unless its owner has asked for them."""
    for logger in map(logging.getLogger, LOGGERS):
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
