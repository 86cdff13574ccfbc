"""Object stores (``s3://``, ``gs://``, ``memory://``): paths, reads by ranges, whole writes, and a bounded cache."""

from .object_cache import local_copy
from .object_path import ObjectPath, as_path, exists, is_remote, isdir, isfile
from .range_file import RangeFile
from .store import StoreError
from .upload import check_work_folder, upload_folder

__all__ = [
    "ObjectPath",
    "RangeFile",
    "StoreError",
    "as_path",
    "check_work_folder",
    "exists",
    "is_remote",
    "isdir",
    "isfile",
    "local_copy",
    "upload_folder",
]
