"""Tests of what a result states of its input."""

import torch

from monai_mil_ext.transforms.bags.input_facts import input_columns, input_facts


def test_input_facts_leave_out_what_is_not_known():
    assert input_facts({"container": "", "notes": ""}) == {}
    assert input_columns({}) == dict.fromkeys(("container", "shape", "spacing", "option", "notes"), "")


def test_input_columns_have_an_option_that_no_spreadsheet_takes_for_a_formula():
    assert input_columns({}, "--irregular allow")["option"] == "try --irregular allow"


def test_input_facts_of_a_slide_are_in_micrometers():
    facts = input_facts({"slide_mpp": 0.25, "spatial_shape": (2220, 2967)})
    assert facts == {"shape": [2220, 2967], "spacing": [0.25, 0.25]}
    assert input_columns(facts)["spacing"] == "0.25 x 0.25 um"


def test_input_facts_take_the_voxel_size_of_an_oblique_scan():
    turn = torch.tensor([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, 7], [0, 0, 1, 50], [0, 0, 0, 1]], dtype=torch.float64)
    affine = turn @ torch.diag(torch.tensor([2.0, 3.0, 5.0, 1.0], dtype=torch.float64))
    assert input_facts({"affine": affine})["spacing"] == [2.0, 3.0, 5.0]


def test_input_columns_join_sentences_to_one_text():
    assert input_columns({"notes": ["The largest image was read.", "it was estimated"]})["notes"] == (
        "The largest image was read; it was estimated"
    )
