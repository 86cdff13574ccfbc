"""Tests of hide_paths: no name of a file or folder stays in a text, and its words do."""

from pathlib import Path
from urllib.parse import quote

import pytest

from monai_mil_ext.utils import hide_paths
from monai_mil_ext.utils.privacy import describe_case_error

NAME = "Müller Jörg_1950"


@pytest.mark.parametrize(
    "text",
    [
        "can't read {path!r}",
        "can't read {path}",
        "can't read {path}/0001_SECRET.dcm (a slice)",
        "got {name!r}.",
        "got {name}.",
        "url file://{quoted}",
        "got {ascii}",
        "relative x/{name}/y",
        "ITK: {path}/0001_SECRET.dcm: no such file, 0001_SECRET.dcm",
        "a file named 0001_SECRET",
        "parent {parent}",
        "parent name 'ward_7' and ward_7/other",
    ],
)
def test_hide_paths_hides_every_form_of_a_name(tmp_path, text):
    folder = tmp_path / "ward_7" / NAME
    folder.mkdir(parents=True)
    (folder / "0001_SECRET.dcm").write_bytes(b"")
    forms = {"path": str(folder), "name": NAME, "quoted": quote(str(folder)), "ascii": ascii(NAME)}
    hidden = hide_paths(text.format(**forms, parent=folder.parent), [folder], "the scan")
    assert "the scan" in hidden
    for secret in ("ller", "rg_1950", "SECRET", "ward_7"):
        assert secret not in hidden


def test_hide_paths_leaves_the_words_of_a_message(tmp_path):
    text = "`image` must be a series of DICOM image slices, got 1 of modality CT."
    for name in ("image", "slices", "DICOM", "CT", "series"):
        assert hide_paths(text, [tmp_path / name / name, f"{name}.nii.gz"]) == text
    assert hide_paths("got 'image'", ["image"]) == "got the file"
    assert hide_paths("got DOERING and 'DOE.h5' of DOE_JOHN", ["DOE.h5"]) == "got DOERING and the file of the file_JOHN"
    assert hide_paths(text, []) == text
    assert hide_paths("got 'a'", ["/x/a"], r"\1") == r"got \1"


@pytest.mark.parametrize("option", ["F", "a", "1", "CT", "image", "one series", "1.2.840.1"])
def test_options_of_an_item_are_words_of_a_message(option):
    text = "`image` must be a Folder with one series, got 1 of modality CT with a gap at 1.2.840.1 mm."
    assert describe_case_error(ValueError(text), {"image": "/data/DOE", "series": option, "sex": option}) == text


@pytest.mark.parametrize("name", ["DOE.nii.gz", "DOE/1.dcm", Path("DOE")])
def test_files_of_an_item_are_hidden_under_any_key(name):
    assert describe_case_error(ValueError(f"got '{name}'."), {"image": "/x/y", "mask": [name]}) == "got the file."
    assert describe_case_error(ValueError("got 'DOE'."), {"image": "DOE"}) == "got the file."


@pytest.mark.parametrize("key", ["input_error", "pictures_missing", "notes", "container"])
def test_sentences_of_an_item_are_no_files(key):
    """The reason for which a file can't be read may itself contain the form of a path."""
    reason = "`image` must be a local path, got an address that begins with 's3://'."
    item = {"case_id": "c", "image": "", key: reason.removesuffix(".")}
    assert describe_case_error(ValueError(reason), item) == reason


def test_hide_paths_leaves_words_that_contain_a_short_name():
    text = "`image` must be regular, got a gap in 'a' at a/0001.dcm"
    assert hide_paths(text, ["a"]) == "`image` must be regular, got a gap in the file at the file"
