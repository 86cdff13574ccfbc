"""Tests of InstanceScoresd and RankInstancesd."""

import pytest
import torch

from monai_mil_ext.transforms import InstanceScoresd, RankInstancesd

ATTENTION = torch.tensor([[0.5, 0.1], [0.25, 0.7], [0.25, 0.2], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("head", "expected", "source"),
    [(None, ATTENTION.mean(1), "mean"), (0, ATTENTION[:, 0], 0), ("predicted", ATTENTION[:, 1], 1)],
)
def test_instance_scoresd_are_those_of_a_head(head, expected, source):
    item = InstanceScoresd(head=head)({"attention": ATTENTION, "pred": torch.tensor([0.2, 0.8])})
    assert torch.equal(item["scores"], expected)
    assert item["score_source"] == source


def test_instance_scoresd_of_one_head_need_no_second_axis():
    for head in (None, 0):
        assert torch.equal(InstanceScoresd(head=head)({"attention": ATTENTION[:, 0]})["scores"], ATTENTION[:, 0])


def test_instance_scoresd_names_a_missing_head():
    with pytest.raises(ValueError, match="`head` must be from 0 to 1, got 2"):
        InstanceScoresd(head=2)({"attention": ATTENTION})
    with pytest.raises(ValueError, match="`head` 'predicted' must have attention for each of the classes, got 2"):
        InstanceScoresd(head="predicted")({"attention": ATTENTION, "pred": torch.ones(3)})
    with pytest.raises(ValueError, match="`head` must be one of"):
        InstanceScoresd(head="first")


def test_rank_instancesd_puts_an_instance_in_one_group_and_padding_in_none():
    item = {"scores": torch.tensor([0.5, 0.1, 0.5, 0.0, 0.0]), "mask": torch.tensor([True, True, True, True, False])}
    assert [RankInstancesd(top_k=2)(item)[key].tolist() for key in ("top", "bottom")] == [[0, 2], [3, 1]]
    assert [RankInstancesd(top_k=3)(item)[key].tolist() for key in ("top", "bottom")] == [[0, 2, 1], [3]]
    with pytest.raises(ValueError, match="`top_k` must be a positive integer, got 0"):
        RankInstancesd(top_k=0)
