"""Tests of the view of a slide that its viewer shows."""

import numpy as np
import pytest
import torch

from monai_mil_ext.handlers.savers.slide_view import item_thumbnail, slide_view
from monai_mil_ext.transforms import InstanceScoresd
from monai_mil_ext.utils import drop_padding
from tests.handlers.savers.items import slide

HEADS = torch.tensor([[0.2, 0.6], [0.5, 0.3], [0.3, 0.1], [0.0, 0.0]])


def without_padding(item):
    return {**item, **{key: drop_padding(item[key], item) for key in ("scores", "coords")}}


@pytest.mark.parametrize(
    ("head", "names"),
    [(None, ["mean of all heads", "head 0", "head 1"]), (1, ["head 1", "mean of all heads", "head 0"])],
)
def test_slide_view_has_each_head_and_begins_with_that_of_the_results(head, names):
    item = without_padding(InstanceScoresd(head=head)(slide(attention=HEADS)))
    maps = slide_view(item).maps
    assert list(maps) == names
    expected = {"mean of all heads": HEADS.mean(1), "head 0": HEADS[:, 0], "head 1": HEADS[:, 1]}
    for name, scores in maps.items():
        assert np.allclose(scores, expected[name][:3])


def test_slide_view_names_heads_by_classes_only_if_there_are_as_many():
    item = without_padding(slide(attention=HEADS))
    assert list(slide_view(item, ["benign", "tumor"]).maps)[2] == "head 1 (tumor, if heads are classes)"
    assert list(slide_view(item, ["a", "b", "c"]).maps)[2] == "head 1"


def test_slide_view_of_one_head_and_no_pixels():
    view = slide_view(without_padding(slide()))
    assert (list(view.maps), view.mpp, view.scaling) == (["mean of all heads"], 0.5, "ratio")
    assert (view.bounds, view.extent) == ((0, 0, 160, 128), (0, 0, 160, 128))
    assert (view.thumbnail, view.pixels) == (None, None)
    assert view.top.tolist() == [1, 2, 0]


def test_slide_view_covers_the_thumbnail():
    pixels = {"thumbnail": torch.zeros((32, 40, 3), dtype=torch.uint8), "thumbnail_downsample": 4.0}
    item = without_padding(slide(**pixels, thumbnail_origin=torch.tensor([16.0, 8.0])))
    assert slide_view(item).extent == (16.0, 8.0, 160.0, 128.0)
    assert item_thumbnail(item).downsample == 4.0
