"""Tests of the error for cases that gave no features, and of reasons without names of files."""

import copy
import errno

import pytest
import torch

from monai_mil_ext.data import BadCasesError
from monai_mil_ext.data.features.bad_cases import is_system_error, reason_of


def test_bad_cases_error_lists_every_case():
    error = BadCasesError({"a": "OSError: cut", "b": "ValueError: no tissue"})
    assert str(error).splitlines() == [
        "every case must give features, got 2 that do not:",
        "  case 'a': OSError: cut",
        "  case 'b': ValueError: no tissue",
    ]
    assert copy.copy(error).reasons == {"a": "OSError: cut", "b": "ValueError: no tissue"}


@pytest.mark.parametrize(
    ("image", "text", "expected"),
    [
        ("/data/DOE/s.nii", "can't read /data/DOE/s.nii", "can't read the file"),
        ("/data/DOE_JOHN", "ITK can't read 'DOE_JOHN'.", "ITK can't read the file."),
        (["/d/DOE.svs", "/d/ROE.svs"], "'ROE.svs' is cut", "the file is cut"),
        ("s.nii", "in /home/DOE/x: bad", "in <path>: bad"),
        (3.0, "no path", "no path"),
    ],
)
def test_reason_of_has_no_name_of_a_file(image, text, expected):
    assert reason_of(ValueError(text), {"case_id": "/x/case", "image": image}) == expected


def test_reason_of_names_the_kind_of_an_error_that_is_no_sentence():
    error = RuntimeError("Failed to evaluate")
    error.__cause__ = KeyError("image")
    assert reason_of(error, {}) == "KeyError: 'image'"
    assert reason_of(ValueError("`image` must exist."), {}) == "`image` must exist."


def test_is_system_error_if_the_next_case_would_fail_as_well():
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        assert is_system_error(OSError(code, "no"))
    assert is_system_error(MemoryError())
    assert is_system_error(torch.OutOfMemoryError("CUDA"))
    assert not is_system_error(FileNotFoundError(errno.ENOENT, "no"))
    assert not is_system_error(ValueError("no"))
