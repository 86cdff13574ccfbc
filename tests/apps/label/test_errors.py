"""Tests of the HTTP errors of the app."""

import pytest

from monai_mil_ext.apps.label.errors import http_error, http_error_from


@pytest.mark.parametrize(("options", "status"), [((), 400), ((404,), 404)])
def test_http_error_has_status_and_reason(http_errors, options, status):
    error = http_error("no scan", *options)
    assert isinstance(error, http_errors)
    assert (error.status_code, error.detail) == (status, "no scan")


def test_http_error_from_gives_the_root_cause_without_paths(http_errors):
    error = RuntimeError("Failed to run")
    error.__cause__ = ValueError("`image` must be a scan, got '/data/Jane/s.nii' of /data/Jane and s.nii in /tmp/x")
    response = http_error_from(error, "/data/Jane/s.nii", "/tmp/x")  # noqa: S108
    assert response.detail == "ValueError: `image` must be a scan, got ... of ... and ... in ..."
    assert response.status_code == 400


def test_http_error_from_hides_paths_that_it_is_not_given(http_errors):
    error = FileNotFoundError(2, "No such file or directory", "/srv/Jane/encoder.pth")
    response = http_error_from(error, "/data/s.nii")
    assert response.detail == "FileNotFoundError: [Errno 2] No such file or directory: '<path>'"
