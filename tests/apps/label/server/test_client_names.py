"""Tests of names that become file names."""

import pytest

from monai_mil_ext.apps.label.server.client_names import check_extension, check_name, check_uid, exists

HOSTILE = [
    "",
    ".",
    "..",
    "../a",
    "a/b",
    "a\\b",
    "C:a",
    "/etc/passwd",
    "a\x00b",
    "a\nb",
    ".hidden",
    "a" * 201,
    None,
    " a",
    "a\uff0fb",  # which some file systems store as a/b
    "a\u2215b",
    "a\u202eb",
    "\ufffd",
]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name is not None])
def test_check_name_refuses_names_that_leave_their_folder(http_errors, name):
    with pytest.raises(http_errors, match="`image` must be a plain name without separators") as error:
        check_name(name, "image")
    assert error.value.status_code == 400


@pytest.mark.parametrize("name", ["scan_41", "1.2.840.1", "Fall 3", "Größe", "a..b"])
def test_check_name_keeps_plain_names(name):
    assert check_name(name, "image") == name


@pytest.mark.parametrize(("uid", "status"), [("../../ct/data/pat_3", 400), ("scan", 404), ("1." * 40 + "1", 404)])
def test_check_uid_takes_numbers_with_dots(http_errors, uid, status):
    assert check_uid("1.2.840.113654", "image") == "1.2.840.113654"
    with pytest.raises(http_errors, match="`image` must be") as error:
        check_uid(uid, "image")
    assert error.value.status_code == status


def test_check_extension_refuses_code(http_errors):
    check_extension("x.NII.GZ", (".nii.gz",), "file")
    with pytest.raises(http_errors, match=r"`file` must be a file with one of the endings \.nii, \.nii\.gz"):
        check_extension("evil.py", (".nii.gz", ".nii"), "file")


@pytest.mark.parametrize("path", ["a" * 5000, "a\x00b", "no such file"])
def test_exists_takes_impossible_paths_for_missing(path):
    assert not exists(path)
