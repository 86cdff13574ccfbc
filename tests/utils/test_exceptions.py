"""Tests of the root cause of nested exceptions, and of who is to blame for one."""

import copy
import errno
import io
import struct
import sys
import zipfile

import pydicom
import pytest
import torch
from monai.utils import OptionalImportError

from monai_mil_ext.networks.layers import masked_softmax
from monai_mil_ext.utils import EmptyBagError, InputError, check_choice, print_root_cause
from monai_mil_ext.utils.exceptions import case_error, describe_error, root_cause


def test_root_cause_follows_every_cause():
    first, second, third = ValueError("a"), RuntimeError("b"), RuntimeError("c")
    third.__cause__, second.__cause__ = second, first
    assert root_cause(third) is first
    assert root_cause(first) is first


@pytest.fixture
def hook(monkeypatch):
    """The hook that `print_root_cause` sets, for the time of a test."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    print_root_cause()
    return sys.excepthook


def test_print_root_cause_prints_the_cause_last(hook, capsys):
    wrapped = RuntimeError("Failed to evaluate")
    wrapped.__cause__ = ValueError("`image` must be one scan, got two.")
    hook(type(wrapped), wrapped, None)
    assert capsys.readouterr().err.endswith("\nThe cause: ValueError: `image` must be one scan, got two.\n")
    hook(ValueError, ValueError("plain"), None)
    assert capsys.readouterr().err == "ValueError: plain\n"


def raised(function, *args):
    """Return the error that a call raises, with its traceback."""
    try:
        function(*args)
    except BaseException as error:
        return error
    return None


def wrapped(error):
    """Return an error inside of others, as MONAI's transforms wrap it."""
    outer = RuntimeError("applying transform")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no scan"),
        EmptyBagError("no tissue"),
        FileNotFoundError(2, "No such file or directory"),
        OSError(5, "Input/output error"),
        OSError("no HDF5 file"),
        RuntimeError("not a tensor"),
        MemoryError("7 TiB"),
        torch.OutOfMemoryError("CUDA out of memory"),
        zipfile.BadZipFile("not a zip file"),
        EOFError(),
        ZeroDivisionError(),
        struct.error("unpack requires 4 bytes"),
    ],
)
def test_case_error_is_whatever_a_file_may_cause(error):
    assert case_error(error) is error
    assert case_error(wrapped(error)) is error


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(number, "full") for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE)),
        TypeError("a mistake"),
        KeyError("a mistake"),
        AttributeError("a mistake"),
        NameError("a mistake"),
        NotImplementedError(),
        AssertionError(),
        KeyboardInterrupt(),
        SystemExit(),
    ],
)
def test_case_error_is_none_for_the_machine_the_program_and_the_user(error):
    assert case_error(error) is None
    assert case_error(wrapped(error)) is None
    assert case_error(raised(lambda: (_ for _ in ()).throw(error))) is None


def test_case_error_prefers_our_message_to_its_cause():
    ours = ValueError("`path` must be an undamaged bag file")
    ours.__cause__ = KeyError("features")
    assert case_error(wrapped(ours)) is ours
    ours.__cause__ = OSError(errno.ENOSPC, "full")
    assert case_error(wrapped(ours)) is None


def test_case_error_is_a_mistake_of_a_library_that_meets_an_unexpected_file():
    missing = raised(getattr, pydicom.Dataset(), "SliceThickness")
    assert isinstance(missing, AttributeError)
    assert case_error(missing) is missing
    file = io.BytesIO()
    zipfile.ZipFile(file, "w").close()
    absent = raised(zipfile.ZipFile(file).getinfo, "features.npy")
    assert isinstance(absent, KeyError)
    assert case_error(absent) is absent


def test_case_error_of_writing_is_about_the_name_of_the_case():
    for number in (errno.ENAMETOOLONG, errno.EACCES, errno.ENOTDIR):
        assert case_error(OSError(number, "name"), writing=True)
    for error in (OSError("encoder error -2"), OSError(errno.EIO, "disk"), OSError(errno.ENOSPC, "full")):
        assert case_error(error, writing=True) is None
    assert case_error(ValueError("no series"), writing=True)


def test_describe_error_is_one_line_without_a_path():
    assert describe_error(OSError(2, "No such file", "/secret/a")) == "No such file"
    assert describe_error(ValueError("two\n  lines")) == "two lines"
    itk = RuntimeError("Could not open file '/data/Secret Name/a b.nii' for reading: 1/2")
    assert describe_error(itk) == "RuntimeError: Could not open file '<path>' for reading: 1/2"
    assert describe_error(OSError("Unable to open /data/Secretname/x.h5")) == "Unable to open <path>"
    assert describe_error(RuntimeError("bad")) == "RuntimeError: bad"


def test_print_root_cause_names_the_option_that_would_help(hook, capsys):
    error = RuntimeError("while running")
    error.__cause__ = InputError("`image` must have finite voxels, got 3 that are NaN.", "--fill_nan lowest")
    hook(type(error), error, None)
    expected = (
        "\nThe cause: InputError: `image` must have finite voxels, got 3 that are NaN. Consider `--fill_nan lowest`.\n"
    )
    assert capsys.readouterr().err.endswith(expected)


def test_print_root_cause_calls_the_hook_before_it_once(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: seen.append(error))
    print_root_cause()
    print_root_cause()
    wrapped = RuntimeError("Failed to evaluate")
    wrapped.__cause__ = ValueError("`plane` must be axial.")
    sys.excepthook(type(wrapped), wrapped, None)
    assert seen == [wrapped]
    assert capsys.readouterr().err == "\nThe cause: ValueError: `plane` must be axial.\n"


def of_user():
    """Return what a program prints whose user gave something wrong, deep inside of MONAI's errors."""
    outer = RuntimeError("Failed to evaluate")
    outer.__cause__ = raised(check_choice, "plane", "axail", ("axial", "coronal"))
    sys.excepthook(RuntimeError, outer, None)


SENTENCE = "`plane` must be one of 'axial', 'coronal', got 'axail'; did you mean 'axial'?"


def test_print_root_cause_ends_an_error_of_the_user_with_one_sentence(hook, capsys):
    of_user()
    assert capsys.readouterr().err == f"\nError: {SENTENCE}\n(MONAI_MIL_DEBUG=1 shows the traceback.)\n"


def test_print_root_cause_shows_the_traceback_on_demand(hook, capsys, monkeypatch):
    monkeypatch.setenv("MONAI_MIL_DEBUG", "1")
    of_user()
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert text.endswith(f"\nThe cause: ValueError: {SENTENCE}\n")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (raised(open, "lost.csv"), "Error: [Errno 2] No such file or directory: 'lost.csv'"),
        (OSError(errno.ENOSPC, "No space left on device"), "Error: [Errno 28] No space left on device"),
        (OptionalImportError("install it by pip install x"), "Error: install it by pip install x"),
        (KeyboardInterrupt(), "Interrupted."),
    ],
)
def test_print_root_cause_says_what_the_system_lacks(hook, capsys, error, text):
    hook(type(error), error, None)
    assert capsys.readouterr().err.splitlines()[1] == text


@pytest.mark.parametrize("error", [raised(torch.zeros, "a"), raised(check_choice, "a", "b", 3)])
def test_print_root_cause_keeps_the_traceback_of_a_mistake(hook, capsys, error):
    hook(type(error), error, None)
    assert "shows the traceback" not in capsys.readouterr().err


def test_print_root_cause_keeps_the_traceback_of_what_torch_raises_for_a_line_of_the_package(hook, capsys):
    error = raised(masked_softmax, torch.zeros(1, 3, 1), torch.ones(2, 5, dtype=torch.bool))
    assert type(error) is RuntimeError
    hook(type(error), error, None)
    assert "shows the traceback" not in capsys.readouterr().err


def test_an_input_error_keeps_option_and_facts_on_the_way_from_a_worker():
    error = InputError("`image` must be one stack, got 2 of them.", "--stack 1", "enhanced DICOM", spacing=(1, 1, 5))
    error.add_facts("another container", shape=(4, 4, 2))
    copied = copy.copy(error)  # by ``__reduce__``, as between processes
    assert str(copied) == "`image` must be one stack, got 2 of them."
    assert copied.option == "--stack 1"
    assert copied.facts == {"container": "enhanced DICOM", "shape": (4, 4, 2), "spacing": (1, 1, 5)}
