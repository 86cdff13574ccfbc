"""Tests of TopInstanceMasking."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monai_mil_ext.networks.blocks import TopInstanceMasking
from tests.helpers import bags


@given(
    batch=bags(4, max_instances=9, dtype=torch.float64),
    num_instances=st.integers(1, 12),
    rate=st.sampled_from([0.3, 0.6, 0.7, 1.0]),
)
def test_top_instance_masking_masks_as_many_as_published(batch, num_instances, rate):
    scores, mask = batch
    scores = scores.masked_fill(~mask[..., None], 1e3)
    hidden = TopInstanceMasking(num_instances, rate)(scores, mask).isinf()
    for bag, real, gone in zip(scores, mask, hidden, strict=True):
        n, top = int(real.sum()), min(num_instances, int(real.sum()))
        assert gone.sum(0).tolist() == [min(int(top * rate), n - 1)] * 4
        assert not gone[~real].any()
        lowest = bag[real].sort(0, descending=True).values[top - 1]
        assert (bag >= lowest)[gone].all()


def test_top_instance_masking_is_random_per_branch_and_in_training_only():
    block, scores = TopInstanceMasking(4, 0.5), torch.rand(1, 9, 3)
    mask = torch.ones(1, 9) > 0
    draws = torch.stack([block(scores, mask).isinf() for _ in range(60)])
    top = scores[0].argsort(0, descending=True)[:4]
    share = draws.float().mean(0)[0].gather(0, top)
    assert_close(share, torch.full((4, 3), 0.5), rtol=0, atol=0.25)
    assert not torch.equal(draws[..., 0], draws[..., 1])
    assert torch.equal(block.eval()(scores, mask), scores)
