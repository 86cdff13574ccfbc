"""Tests of the errors of object stores."""

import logging
import sys

import pytest

from monai_mil_ext.utils import write_json
from monai_mil_ext.utils.remote import ObjectPath
from tests.object_store import KEY, SECRET

MISSING = "`path` must lie in a bucket that exists, got none for 'DOE_JOHN.h5'."
NO_OBJECT = "`path` must be an object that exists, got none for 'DOE_JOHN.h5'."
REFUSED = "`path` must be an object that the credentials may use, got no permission for 'DOE_JOHN.h5'."

OPERATIONS = {
    "stat": lambda path: path.stat(),
    "exists": lambda path: path.exists(),
    "read": lambda path: path.read_bytes(),
    "list": lambda path: path.sizes(),
    "write": lambda path: write_json(path, {}),
    "remove": lambda path: path.unlink(missing_ok=True),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_errors_of_a_store_are_one_sentence_without_credentials(s3, operation, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(OSError, match="bucket that exists") as missing:
        operation(ObjectPath("s3://another/DOE_JOHN.h5"))
    with s3.checked_permissions(), pytest.raises(OSError, match="permission") as refused:
        operation(ObjectPath("s3://bucket/DOE_JOHN.h5"))
    assert [str(missing.value), str(refused.value)] == [MISSING, REFUSED]
    for text in (caplog.text, repr(missing.value.__cause__), repr(refused.value.__cause__)):
        assert KEY not in text
        assert SECRET not in text


def test_a_store_without_credentials_or_answer_is_named(s3, monkeypatch, request):
    from s3fs import S3FileSystem

    request.addfinalizer(S3FileSystem.clear_instance_cache)

    place = ObjectPath("s3://bucket/a.h5")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match=r"`path` must be reached with credentials of the object store, .* for 'a.h5'"):
        place.read_bytes()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match=r"must lie in a store that answers, got EndpointConnectionError for 'a.h5'\.$"):
        place.read_bytes()


def test_a_store_whose_package_is_missing_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ImportError, match=r"addresses of gs:// need gcsfs: pip install gcsfs\."):
        ObjectPath("gs://bucket/a.h5").exists()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3a", raising=False)
    with pytest.raises(ImportError, match=r"of s3a:// need s3fs: pip install monai-mil-ext\[remote\]\."):
        ObjectPath("s3a://bucket/a.h5").exists()
