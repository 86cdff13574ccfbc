"""Object stores (``s3://``, ``gs://``, ``memory://``): paths, reads by ranges, whole writes, and a bounded cache."""

from .object_cache import local_copy
from .object_path import ObjectPath, as_path, exists, is_remote, isdir, isfile
from .range_file import RangeFile
from .store import StoreError
from .upload import check_stores, upload_folder
from .work_folder import WorkFolder

__all__ = [
    "ObjectPath",
    "RangeFile",
    "StoreError",
    "WorkFolder",
    "as_path",
    "check_stores",
    "exists",
    "is_remote",
    "isdir",
    "isfile",
    "local_copy",
    "upload_folder",
]
