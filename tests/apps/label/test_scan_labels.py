"""Tests of the labels of scans in MONAI Label."""

import json

import pytest

from monai_mil_ext.apps.label.scan_labels import is_labeled, label_of

from .server_parts import Datastore

NAMES = ["no tumor", "Tumor"]


@pytest.mark.parametrize(
    ("info", "final", "expected"),
    [
        ({}, None, None),
        ({"bag_label": 0}, None, 0),
        ({"bag_label": "tumor"}, None, 1),
        ({}, json.dumps({"bag_label": "No Tumor"}), 0),
        ({"bag_label": 1}, json.dumps({"bag_label": 0}), 1),
        ({}, json.dumps({"other": 0}), None),
        ({}, "no JSON", None),
        ({}, "[1]", None),
    ],
)
def test_label_of_prefers_the_info_to_the_file(tmp_path, info, final, expected):
    store = Datastore(tmp_path, info, final)
    assert label_of(store, "a", NAMES) == expected
    assert is_labeled(store, "a") == (expected is not None or final is not None)


@pytest.mark.parametrize("wrong", [2, -1, True, "cancer", 0.5, [1]])
def test_label_of_names_a_label_that_is_no_class(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"`bag_label` must be a class number below 2 or a name of .*, got"):
        label_of(Datastore(tmp_path, {"bag_label": wrong}), "a", NAMES)


def test_is_labeled_counts_a_mask_and_label_of_does_not(tmp_path):
    store = Datastore(tmp_path, final="x")
    store.file = tmp_path / "a.nii.gz"
    assert label_of(store, "a", NAMES) is None
    assert is_labeled(store, "a")
