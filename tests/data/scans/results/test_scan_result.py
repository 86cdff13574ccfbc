"""Tests of ScanResult: which slices are listed, and how it is described."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_mil_ext.data import ScanResult, ScoreBands

VOLUME = MetaTensor(torch.zeros(1, 2, 2, 4))


@pytest.mark.parametrize(
    ("scores", "chosen", "listed"),
    [
        ([0.1, 0.5, 0.0, 0.4], None, [1, 3]),
        ([0.5, 0.5, 0.5, 0.5], None, [0, 1]),
        ([0.0, 0.5, 0.0, 0.0], None, [1]),
        ([0.0, 0.0, 0.0, 0.0], None, [0]),
        ([0.1, 0.5, 0.0, 0.4], [1, 0, 0, 0], [1, 3, 0]),
        ([0.1, 0.5, 0.0, 0.4], [0, 1, 0, 0], [1, 3]),
    ],
)
def test_scan_result_lists_top_slices_and_the_chosen_ones(scores, chosen, listed):
    chosen = None if chosen is None else np.array(chosen, bool)
    assert ScanResult(VOLUME, top_k=2).rank(np.array(scores), chosen).tolist() == listed


@pytest.mark.parametrize(
    ("top_k", "names"),
    [
        (1, ["slice of rank 1", "slices ranked 2 to 3"]),
        (2, ["slice of rank 1", "slice of rank 2", "slices ranked 3 to 6"]),
        (4, ["slice of rank 1", "slices ranked 2 to 4", "slices ranked 5 to 12"]),
    ],
)
def test_scan_result_marks_the_first_slice_apart(top_k, names):
    assert ScanResult(VOLUME, top_k=top_k).marked.names == names
    assert ScanResult(VOLUME, bands=ScoreBands(top_k=(2,))).marked.names == ["slices ranked 1 to 2"]


def test_scan_result_is_summed_up_by_its_predicted_class():
    names = {"benign": 0.75, "malignant": 0.25}
    assert ScanResult(VOLUME, names, "benign").summary() == "benign 0.75"
    assert ScanResult(VOLUME, names).summary() == "malignant 0.25"
    assert ScanResult(VOLUME, {"n" * 80: 0.5}).summary() == "n" * 21 + "... 0.50"
    assert ScanResult(VOLUME).summary() == ""


def test_scan_result_checks_its_numbers():
    with pytest.raises(ValueError, match=r"`probability` must be in \[0, 1\], got 1.5"):
        ScanResult(VOLUME, {"a": 1.5})
    with pytest.raises(ValueError, match="`top_k` must be"):
        ScanResult(VOLUME, top_k=0)


def test_scan_result_tells_results_apart_by_their_content():
    results = [ScanResult(VOLUME, {"a": 0.5}), ScanResult(VOLUME, {"a": 0.25}), ScanResult(VOLUME, {"b": 0.5})]
    results += [ScanResult(VOLUME, {"a": 0.5}, top_k=2), ScanResult(VOLUME, {"a": 0.5}, guarantee="x")]
    assert len({tuple(result.content()) for result in results}) == len(results)
