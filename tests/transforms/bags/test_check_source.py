"""Tests of the check of a bag's source."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_mil_ext.data import InstanceSource, write_bag
from monai_mil_ext.transforms import CheckSourced, LoadOrStatus
from monai_mil_ext.utils import SourceMismatchError

TILES = InstanceSource(encoder="uni_v1", mpp=(0.5,))
SLICES = InstanceSource(window=(-1000.0, 400.0), modality=("CT",), lowest=(-1024.0, -1000.0), highest=(1000.0, 3000.0))
GIVEN = {"window": [-1000, 400]}


@pytest.fixture
def bag(tmp_path):
    def write(**attributes):
        write_bag(tmp_path / "a.h5", {"features": np.zeros((2, 4))}, attributes)
        return {"image": str(tmp_path / "a.h5"), "case_id": "a"}

    return write


def scan(**meta):
    return {"image": torch.zeros(2, 4), "slices": MetaTensor(torch.zeros(2, 1, 8, 8), meta=meta)}


def test_check_source_accepts_the_source_of_the_training(bag):
    item = CheckSourced("image", TILES)(bag(encoder="uni_v1", mpp=0.5))
    assert item["source_check"] == "agrees with the training"


def test_check_source_says_what_a_file_does_not_state(bag):
    assert CheckSourced("image", TILES)(bag(mpp=0.5))["source_check"] == "not checked: encoder"


def test_check_source_refuses_another_encoder_and_resolution(bag):
    item = bag(encoder="gigapath", mpp=2.0)
    with pytest.raises(
        SourceMismatchError, match=r"trained on encoder uni_v1 at 0\.5 mpp, got encoder gigapath at 2 mpp"
    ):
        CheckSourced("image", TILES)(item)
    marked = CheckSourced("image", TILES, allow_mismatch=True)(item)
    assert marked["source_check"].startswith("mismatch: trained on encoder uni_v1")


def test_a_refused_bag_is_a_row_of_an_inference(bag):
    load = LoadOrStatus(CheckSourced("image", TILES), {"image": [4]})
    status = load(bag(encoder="gigapath", mpp=0.5))["status"]
    assert status == "refused: trained on encoder uni_v1, got encoder gigapath"


def test_check_source_says_that_the_training_is_unknown(bag):
    item = CheckSourced("image", None)(bag())
    assert item["source_check"] == "not checked: it is not known what the model was trained on"


def test_options_of_a_run_do_not_stand_for_those_of_a_file(bag):
    item = CheckSourced("image", TILES, given={"encoder": "uni_v1", "mpp": 0.5})(bag())
    assert item["source_check"] == "not checked: encoder, mpp"


@pytest.mark.parametrize(
    ("given", "meta", "message"),
    [
        ({"window": [-160, 240]}, {}, "trained on window -1000 to 400, got window -160 to 240"),
        (GIVEN, {"modality": "MR"}, "trained on modality CT, got modality MR"),
        (GIVEN, {"lowest": 0.0, "highest": 255.0}, "trained on values from -1024, got values from 0"),
    ],
)
def test_check_source_reads_options_and_metadata_of_a_scan(given, meta, message):
    with pytest.raises(SourceMismatchError, match=message):
        CheckSourced("image", SLICES, given)(scan(**meta))


def test_check_source_accepts_a_scan_of_the_training():
    item = CheckSourced("image", SLICES, GIVEN)(scan(modality="CT", lowest=-1010.0, highest=2000.0))
    assert item["source_check"] == "agrees with the training"


def test_check_source_checks_the_options_before_a_scan_is_loaded(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    check = CheckSourced("image", SLICES, {"window": [-160, 240]})
    with pytest.raises(SourceMismatchError, match="got window -160 to 240"):
        check({"image": str(tmp_path / "scan.nii.gz")})


def test_the_word_false_of_a_command_line_allows_nothing(bag):
    item = bag(encoder="gigapath")
    with pytest.raises(SourceMismatchError, match="trained on encoder uni_v1, got encoder gigapath"):
        CheckSourced("image", TILES, allow_mismatch="false")(item)
    assert CheckSourced("image", TILES, allow_mismatch="True")(item)["source_check"].startswith("mismatch: ")
    with pytest.raises(ValueError, match="`allow_mismatch` must be true or false, got 'maybe'"):
        CheckSourced("image", TILES, allow_mismatch="maybe")


@pytest.mark.parametrize("modality", [None, "", "unknown"])
def test_a_modality_that_a_header_leaves_empty_is_not_another_one(modality):
    item = CheckSourced("image", SLICES, GIVEN)(scan(modality=modality, lowest=-1024.0, highest=2000.0))
    assert item["source_check"] == "not checked: modality"


def test_the_range_of_values_of_a_scan_is_compared():
    item = scan(modality="CT", value_range=[0.0, 255.0])
    with pytest.raises(SourceMismatchError, match="trained on values from -1024, got values from 0"):
        CheckSourced("image", SLICES, GIVEN)(item)
